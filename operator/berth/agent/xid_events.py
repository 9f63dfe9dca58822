"""XID errors as the driver reports them: a thread waits for them, because the driver's call blocks."""

import ctypes
import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pynvml

from berth.agent.readings import Xid
from berth.api.gpu_node import MOST_XIDS

logger = logging.getLogger(__name__)

_WAIT_MILLISECONDS = 200
"""How long one call waits; stopping takes no longer."""


class XidRecord:
    """What came so far, by uuid of the GPU. Written by the thread, read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, deque[Xid]] = defaultdict(lambda: deque(maxlen=MOST_XIDS))
        self._counts: Counter[tuple[str, int]] = Counter()

    def add(self, uuid: str, xid: Xid) -> None:
        """One came."""
        with self._lock:
            self._latest[uuid].append(xid)
            self._counts[uuid, xid.number] += 1

    def latest(self, uuid: str) -> tuple[Xid, ...]:
        """The last ones of a GPU since `forget`, the latest last."""
        with self._lock:
            return tuple(self._latest.get(uuid, ()))

    def counts(self) -> dict[tuple[str, int], int]:
        """How many there were in all, by uuid and number."""
        with self._lock:
            return dict(self._counts)

    def forget(self) -> None:
        """The driver starts anew, and what was wrong before with it: the counts stay."""
        with self._lock:
            self._latest.clear()


class XidWatch:
    """Waits for XID errors of some GPUs until it is stopped. GPUs that report none are left out."""

    def __init__(self, handles: Mapping[str, Any], record: XidRecord) -> None:
        self._record = record
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._events = pynvml.nvmlEventSetCreate()
        self._uuids: dict[int, str] = {}
        for uuid, handle in handles.items():
            try:
                pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, self._events)
            except pynvml.NVMLError as error:
                logger.info("%s reports no XID errors: %s", uuid, error)
            else:
                self._uuids[_address(handle)] = uuid

    def start(self) -> None:
        """Begin to wait, unless there is nothing to wait for."""
        if self._uuids:
            self._thread = threading.Thread(target=self._run, name="xid-events", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Wait no more. The events are freed only when the thread is out of the driver's call."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(4 * _WAIT_MILLISECONDS / 1000)
            if self._thread.is_alive():
                return
        try:
            pynvml.nvmlEventSetFree(self._events)
        except pynvml.NVMLError:  # a driver that is gone has freed them
            logger.debug("the events could not be freed", exc_info=True)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, _WAIT_MILLISECONDS)
            except pynvml.NVMLError_Timeout:
                continue
            except pynvml.NVMLError as error:  # the driver is gone; whoever reads it finds out and starts anew
                logger.info("no XID errors are reported any more: %s", error)
                return
            uuid = self._uuids.get(_address(event.device))
            if event.eventType & pynvml.nvmlEventTypeXidCriticalError and uuid is not None:
                logger.warning("Xid %d of %s", event.eventData, uuid)
                self._record.add(uuid, Xid(int(event.eventData), datetime.now(UTC)))


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
