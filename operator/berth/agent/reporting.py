"""Brings the status to the API server: reads what the object says, writes when it is worth it.

The agent never makes its GPUNode. While there is none it waits, and says so once.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from pydantic import ValidationError

from berth.agent.metrics import Metrics
from berth.agent.readings import Snapshot
from berth.agent.status import status_from
from berth.agent.writing import patch, worth_writing
from berth.api.gpu_node import GPUNodeStatus
from berth.cluster import resources
from berth.cluster.errors import ApiError, NotFoundError
from berth.cluster.gateway import Gateway, Json

logger = logging.getLogger(__name__)

LOOK_UP = timedelta(seconds=60)
"""How often the object is read: somebody may have deleted it, and a new one says nothing."""

FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=1), timedelta(seconds=60)
"""Between attempts while the API server refuses or does not answer."""

WAITING = timedelta(seconds=5)
"""Between looks for an object that does not exist yet."""


class Reporter:
    """Knows what the GPUNode says, and changes it."""

    def __init__(self, gateway: Gateway, node: str, metrics: Metrics, clock: Callable[[], datetime]) -> None:
        self._gateway, self._node, self._metrics, self._clock = gateway, node, metrics, clock
        self._stored = GPUNodeStatus()
        self._generation = 1
        self._exists = False
        self._read_at: datetime | None = None
        self._delay = FIRST_RETRY
        self._problem: str | None = None

    def status(self, snapshot: Snapshot) -> GPUNodeStatus:
        """What there is to report of a look."""
        return status_from(snapshot, self._stored, self._generation, self._clock())

    async def report(self, snapshot: Snapshot) -> None:
        """Write what a look found, if it is worth it. Never raises because of the API server."""
        try:
            await self._read_when_due()
            if self._exists:
                await self._write(snapshot)
        except NotFoundError as error:
            self._exists = False
            missing = "the kind GPUNode" if error.kind_is_missing else f"the GPUNode {self._node}"
            self._wait(WAITING, f"{missing} does not exist yet: the operator makes it; waiting")
        except ApiError as error:
            self._metrics.failures.inc()
            self._wait(self._delay, f"the status cannot be reported: {error}")
            self._delay = min(self._delay * 2, LONGEST_RETRY)
        else:
            if self._exists and self._problem is not None:
                logger.info("the status is reported again")
                self._problem, self._delay = None, FIRST_RETRY

    async def _read_when_due(self) -> None:
        now = self._clock()
        if self._read_at is not None and now < self._read_at:
            return
        found = await self._gateway.get(resources.GPU_NODES, None, self._node, subresource="status")
        self._take(found)
        self._exists, self._read_at = True, now + LOOK_UP

    async def _write(self, snapshot: Snapshot) -> None:
        status = self.status(snapshot)
        reason = worth_writing(self._stored, status, self._clock())
        if reason is None:
            return
        logger.debug("writing: %s", reason)
        found = await self._gateway.merge_patch(
            resources.GPU_NODES, None, self._node, patch(status), subresource="status"
        )
        self._metrics.writes.inc()
        self._take(found)

    def _take(self, found: Json) -> None:
        self._generation = int(found["metadata"].get("generation", 1))
        try:
            self._stored = GPUNodeStatus.model_validate(found.get("status") or {})
        except ValidationError:  # another version of Berth wrote it
            self._stored = GPUNodeStatus()

    def _wait(self, delay: timedelta, problem: str) -> None:
        """Leave the API server alone for a while; the object is read anew then."""
        self._exists, self._read_at = False, self._clock() + delay
        if problem != self._problem:
            logger.warning("%s", problem)
            self._problem = problem
