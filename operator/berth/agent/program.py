"""The agent process: looks at its node every few seconds, shows what it sees, and reports what matters."""

import asyncio
import contextlib
import logging
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from berth.agent.attribution import by_device, owners
from berth.agent.driver import Driver, DriverExchangedError
from berth.agent.endpoints import Endpoints
from berth.agent.metrics import Metrics
from berth.agent.node_files import NodeFiles
from berth.agent.pod_resources import KubeletSilentError, PodResources
from berth.agent.readings import DriverReading, DriverTrouble, Holder, Holders, Snapshot
from berth.agent.reporting import Reporter
from berth.cluster.connection import connect
from berth.cluster.gateway import Gateway
from berth.cluster.transport import Limits

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds without a look after which the agent counts as stuck; a driver may hang in a call."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How the process runs; each field is a flag of `berth agent`."""

    node: str
    kubeconfig: Path | None = None
    library: Path | None = None
    pod_resources: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    proc: Path = Path("/proc")
    pod_logs: Path = Path("/var/log/pods")
    host: str = "0.0.0.0"  # noqa: S104 - probes and scrapers reach a Pod from outside
    port: int = 8080
    interval: float = 2.0


class Agent:
    """One agent process."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.stop = asyncio.Event()
        self.port = settings.port
        self._driver = Driver(settings.library)
        self._files = NodeFiles(settings.proc, settings.pod_logs)
        self._kubelet = PodResources(settings.pod_resources)
        self._metrics = Metrics(settings.node, self._driver.xids.counts)
        self._held: list[tuple[Holder, str]] = []
        self._silence: str | None = None
        self._snapshot: Snapshot | None = None
        self._looked = asyncio.Event()
        self._looked_at: float | None = None

    async def run(self) -> None:
        """Serve until `stop` is set or a signal comes.

        Raises ConnectError when there is no account to log in with, and DriverExchangedError when only a new
        container can see the driver.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        async with contextlib.AsyncExitStack() as stack:
            client = await connect(self.settings.kubeconfig, pool_size=4)
            stack.push_async_callback(client.close)
            gateway = Gateway(
                client,
                field_manager="berth-agent",
                concurrency=1,
                limits=Limits(read_timeout=5, write_timeout=5, deadline=5),
            )
            reporter = Reporter(gateway, self.settings.node, self._metrics, lambda: datetime.now(UTC))
            endpoints = Endpoints(self.settings.host, self.settings.port, self._metrics.registry, self._problem)
            self.port = (await stack.enter_async_context(endpoints)).port
            logger.info("listening on %s:%d", self.settings.host, self.port)
            stack.callback(self._kubelet.close)
            await self._run_until_stopped(reporter)
        logger.info("stopped")

    async def _run_until_stopped(self, reporter: Reporter) -> None:
        tasks = [
            asyncio.create_task(self._look_for_ever(reporter), name="looking"),
            asyncio.create_task(self._report_for_ever(reporter), name="reporting"),
            asyncio.create_task(self.stop.wait(), name="stop"),
        ]
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for task in done:
            task.result()

    async def _look_for_ever(self, reporter: Reporter) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._look_once(reporter)
            except DriverExchangedError:
                raise
            except Exception:  # a driver may answer anything; when it goes on, the Pod is not Ready
                logger.exception("a look failed")
            await asyncio.sleep(max(0.0, began + self.settings.interval - time.monotonic()))

    async def _look_once(self, reporter: Reporter) -> None:
        self._snapshot = await self._look()
        self._metrics.node.status = reporter.status(self._snapshot)
        self._metrics.node.looked_at = time.time()
        self._looked_at = time.monotonic()
        self._looked.set()

    async def _report_for_ever(self, reporter: Reporter) -> None:
        """Apart from looking, which must not wait for the API server; what was seen meanwhile is skipped."""
        while True:
            await self._looked.wait()
            self._looked.clear()
            if self._snapshot is not None:
                await reporter.report(self._snapshot)

    async def _look(self) -> Snapshot:
        await self._ask_kubelet()
        return await asyncio.to_thread(self._see)

    async def _ask_kubelet(self) -> None:
        """While kubelet is silent the last that it said holds: it is restarted, and Pods live on."""
        try:
            self._held, silence = await self._kubelet.held(), None
        except KubeletSilentError as error:
            silence = str(error)
        if silence != self._silence:
            logger.warning("%s", silence or "kubelet answers again")
            self._silence = silence

    def _see(self) -> Snapshot:
        """Everything that blocks, in one thread."""
        driver: DriverReading | DriverTrouble = self._driver.read()
        devices = driver.devices if isinstance(driver, DriverReading) else ()
        pids = {process.pid for device in devices for process in device.processes}
        holders = by_device(self._held, devices)
        return Snapshot(
            driver=driver,
            holders=Holders(holders, self._silence),
            owners=owners(devices, self._files.cgroups(pids), self._files.pods() if pids else {}, holders),
            commands=self._files.commands(pids),
            host_memory=self._files.memory(),
            boot_id=self._files.boot_id(),
        )

    def _problem(self) -> str | None:
        if self._looked_at is None:
            return "the agent has not looked at its node yet"
        silence = time.monotonic() - self._looked_at
        if silence > PATIENCE + self.settings.interval:
            return f"the agent has not looked at its node for {silence:.0f} s: the driver may hang"
        return None
