"""`berth agent` as a process whose driver is the stand-in."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from support import nvml_standin
from support.kube import eventually

ROOT = Path(__file__).resolve().parents[2]


class AgentProcess:
    """An agent; its log is kept in a file and shown when it does not start."""

    def __init__(
        self, folder: Path, node_name: str, kubeconfig: Path, *flags: str, driver: nvml_standin.Node | None
    ) -> None:
        self.log = folder / f"agent-{time.monotonic_ns()}.log"
        self._file = self.log.open("wb")
        library = folder / "libnvidia-ml.so.1" if driver is None else nvml_standin.library()
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "berth", "agent", "--node", node_name, "--kubeconfig", str(kubeconfig)),
                *("--library", str(library), "--host", "127.0.0.1", "--port", "0", "--interval", "0.1"),
                *("--log-format", "text", *flags),
            ],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env=environment if driver is None else {**environment, nvml_standin.VARIABLE: str(driver.path)},
        )
        self.port = int(eventually(self._find_port, 30, f"the port in {self.log}"))

    def _find_port(self) -> str:
        text = self.log.read_text()
        assert self.process.poll() is None, f"the agent ended: {text}"
        found = re.search(r"listening on \S+:(\d+)", text)
        return found.group(1) if found else ""

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an endpoint."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of the samples that have the labels; None when there are none."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise AssertionError(f"the agent did not stop within 10 s: {self.log.read_text()[-2000:]}") from None
        finally:
            self._file.close()
