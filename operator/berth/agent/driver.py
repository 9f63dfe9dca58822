"""The driver, through NVML: everything that one look reads of the GPUs.

Nothing here is certain: functions are missing in older drivers, single figures are not supported by a GPU, a GPU is
lost, the whole driver goes and comes back. A figure that cannot be had is None; a GPU that is lost says so and the
others go on; a driver that does not answer is started anew, later and later.
"""

import ctypes
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pynvml

from berth.agent.readings import Device, DriverReading, DriverTrouble, Memory, Process
from berth.agent.xid_events import XidRecord, XidWatch

logger = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0
"""Seconds between attempts to start a driver that does not answer."""

LOST_RETRY = 60.0
"""Seconds until a driver with a lost GPU is started anew: a GPU that was reset is seen only by a new start."""

_LOST = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_GPU_NOT_FOUND}
_GONE = {
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
}
"""What every call says once the driver under us was unloaded or exchanged."""

_TROUBLE = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "NoDriver",
        "libnvidia-ml.so.1 is not here: the node has no NVIDIA driver, or the Pod does not get it "
        "(runtimeClassName: nvidia, or --library with its path)",
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: ("DriverNotLoaded", "the NVIDIA kernel module is not loaded"),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "DriverExchanged",
        "the driver of the node is another one than this container was started with: restart the Pod",
    ),
}


class DriverExchangedError(Exception):
    """The node got another driver while this process runs: only a new container gets its library."""


class LostError(Exception):
    """A GPU does not answer."""


class Driver:
    """The driver of this node. Used from one thread at a time."""

    def __init__(self, library: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`library` is where libnvidia-ml.so.1 is, if the loader does not find it by itself."""
        self.xids = XidRecord()
        self._library, self._clock = library, clock
        self._watch: XidWatch | None = None
        self._started = False
        self._worked = False
        self._trouble: DriverTrouble | None = None
        self._retry_at = 0.0
        self._delay = FIRST_RETRY
        self._look_again_at: float | None = None

    def read(self) -> DriverReading | DriverTrouble:
        """Everything that the driver says now, or why it says nothing.

        Raises DriverExchangedError when it worked in this process and can never again.
        """
        if self._look_again_at is not None and self._clock() >= self._look_again_at:
            self.close()
        if not self._started:
            if self._trouble is not None and self._clock() < self._retry_at:
                return self._trouble
            try:
                self._start()
            except pynvml.NVMLError as error:
                return self._give_up(error)
        try:
            return self._read()
        except pynvml.NVMLError as error:
            self.close()
            return self._give_up(error)

    def close(self) -> None:
        """Let go of the driver."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if self._started:
            self._started = False
            try:
                pynvml.nvmlShutdown()
            except pynvml.NVMLError:
                logger.debug("the driver could not be shut down", exc_info=True)

    def _start(self) -> None:
        if self._library is not None:
            try:  # the binding then finds it by its name, because it is loaded
                ctypes.CDLL(str(self._library))
            except OSError as error:
                logger.debug("%s", error)
        pynvml.nvmlInit()
        self._started = self._worked = True
        if self._trouble is not None:
            self.xids.forget()
        self._trouble, self._delay, self._look_again_at = None, FIRST_RETRY, None
        handles = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = _or_none(pynvml.nvmlDeviceGetHandleByIndex, index)
            if handle is not None and (uuid := _or_none(pynvml.nvmlDeviceGetUUID, handle)):
                handles[uuid] = handle
        logger.info("the driver answers: %s, %d GPUs", _or_none(pynvml.nvmlSystemGetDriverVersion), len(handles))
        try:
            self._watch = XidWatch(handles, self.xids)
            self._watch.start()
        except pynvml.NVMLError as error:
            logger.info("no XID errors are reported here: %s", error)

    def _give_up(self, error: pynvml.NVMLError) -> DriverTrouble:
        code = error.value
        if code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH and self._worked:
            raise DriverExchangedError(_TROUBLE[code][1]) from error
        reason, message = _TROUBLE.get(code, ("DriverUnavailable", f"the driver does not answer: {error}"))
        if self._trouble is None or self._trouble.reason != reason:
            logger.warning("no GPUs are seen: %s", message)
        self._trouble = DriverTrouble(reason, message)
        self._retry_at = self._clock() + self._delay
        self._delay = min(self._delay * 2, LONGEST_RETRY)
        return self._trouble

    def _read(self) -> DriverReading:
        devices: list[Device] = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            devices.extend(self._device(index))
        if self._look_again_at is None and any(device.lost for device in devices):
            self._look_again_at = self._clock() + LOST_RETRY
        cuda = _or_none(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        return DriverReading(
            version=_or_none(pynvml.nvmlSystemGetDriverVersion),
            cuda=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
            devices=tuple(devices),
        )

    def _device(self, index: int) -> Iterator[Device]:
        """A GPU, and behind it its MIG devices."""
        uuid, product = "", ""
        try:
            handle = _certainly(pynvml.nvmlDeviceGetHandleByIndex, index)
            uuid = _certainly(pynvml.nvmlDeviceGetUUID, handle)
            product = _certainly(pynvml.nvmlDeviceGetName, handle)
            mig = _ask(pynvml.nvmlDeviceGetMigMode, handle)
            gpu = _gpu(handle, uuid, product, index, bool(mig and mig[0]))
            slices = list(_mig_devices(handle, gpu)) if gpu.mig else []
        except LostError as error:
            yield Device(uuid, product, index=index, lost=str(error), xids=self.xids.latest(uuid))
            return
        xids = self.xids.latest(uuid)
        for device in (gpu, *slices):
            yield replace(device, xids=xids) if xids else device


def _gpu(handle: Any, uuid: str, product: str, index: int, mig: bool) -> Device:
    utilisation = _ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    rows = _ask(pynvml.nvmlDeviceGetRemappedRows, handle)
    return Device(
        uuid=uuid,
        product=product,
        index=index,
        minor=_ask(pynvml.nvmlDeviceGetMinorNumber, handle),
        memory=_memory(handle),
        utilisation=None if utilisation is None else int(utilisation.gpu),
        temperature=_ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        power_milliwatts=_ask(pynvml.nvmlDeviceGetPowerUsage, handle),
        ecc_errors=_ask(
            pynvml.nvmlDeviceGetTotalEccErrors,
            handle,
            pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            pynvml.NVML_VOLATILE_ECC,
        ),
        recovery=_recovery(handle),
        remapping_failed=bool(rows and rows[3]),
        mig=mig,
        # In MIG mode the slices tell of their own processes, and the whole only if asked with more rights.
        processes=() if mig else _processes(handle),
    )


def _mig_devices(handle: Any, gpu: Device) -> Iterator[Device]:
    for index in range(_ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        uuid = part and _ask(pynvml.nvmlDeviceGetUUID, part)
        if not uuid:
            continue  # not all of the possible ones exist
        name = _ask(pynvml.nvmlDeviceGetName, part) or ""
        yield Device(
            uuid=uuid,
            product=gpu.product,
            memory=_memory(part),
            recovery=gpu.recovery,
            remapping_failed=gpu.remapping_failed,
            parent=gpu.uuid,
            profile=name.rpartition("MIG ")[2] or None,
            processes=_processes(part),
        )


def _memory(handle: Any) -> Memory | None:
    newer = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    if newer is not None:
        return Memory(int(newer.total), int(newer.used), int(newer.reserved)) if newer.total else None
    older = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return Memory(int(older.total), int(older.used)) if older is not None and older.total else None


def _recovery(handle: Any) -> int | None:
    values = _ask(pynvml.nvmlDeviceGetFieldValues, handle, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    if values is None or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return int(values[0].value.uiVal)


def _processes(handle: Any) -> tuple[Process, ...]:
    """All that use it in any way; one that computes and draws is in several lists and counts once."""
    found: dict[int, int | None] = {}
    for ask in (
        pynvml.nvmlDeviceGetComputeRunningProcesses_v3,
        pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
        pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3,
    ):
        for process in _ask(ask, handle) or ():
            memory, known = process.usedGpuMemory, found.get(process.pid)
            found[process.pid] = known if memory is None else max(int(memory), known or 0)
    return tuple(Process(pid, memory) for pid, memory in sorted(found.items()))


def _certainly(ask: Callable[..., T], *arguments: Any) -> T:
    """The answer to a question that every GPU can answer. Raises LostError when it does not."""
    try:
        return ask(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise
        raise LostError(str(error)) from error


def _ask(ask: Callable[..., T], *arguments: Any) -> T | None:
    """The answer, or None where there is none to be had. Raises LostError when the whole GPU is lost."""
    try:
        return ask(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise
        if error.value in _LOST:
            raise LostError(str(error)) from error
        return None


def _or_none(ask: Callable[..., T], *arguments: Any) -> T | None:
    try:
        return ask(*arguments)
    except pynvml.NVMLError:
        return None
