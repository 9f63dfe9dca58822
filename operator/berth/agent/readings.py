"""What the agent sees when it looks at its node: plain data, in bytes, nothing decided yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a GPU. `reserved` is what the driver keeps, where it does not count it as used."""

    total: int
    used: int
    reserved: int | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a GPU; `memory` is None where the driver does not tell."""

    pid: int
    memory: int | None


@dataclass(frozen=True, slots=True)
class Xid:
    """An error that the driver reported."""

    number: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a MIG device, of which `parent` is set. What a driver does not tell is None."""

    uuid: str
    """Empty when it was lost before the driver could be asked for it."""
    product: str
    index: int | None = None
    minor: int | None = None
    memory: Memory | None = None
    utilisation: int | None = None
    temperature: int | None = None
    power_milliwatts: int | None = None
    ecc_errors: int | None = None
    recovery: int | None = None
    """The driver's own verdict: what has to be done, 0 for nothing."""
    remapping_failed: bool = False
    """Whether broken memory could not be replaced by spare one."""
    mig: bool = False
    parent: str | None = None
    profile: str | None = None
    lost: str | None = None
    """Why nothing can be asked of it, as the driver puts it."""
    processes: tuple[Process, ...] = ()
    xids: tuple[Xid, ...] = ()


@dataclass(frozen=True, slots=True)
class DriverReading:
    """What an answering driver says."""

    version: str | None
    cuda: str | None
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class DriverTrouble:
    """Why the driver does not answer."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Holder:
    """A container that kubelet gave a device to."""

    namespace: str
    pod: str
    container: str


@dataclass(frozen=True, slots=True)
class Holders:
    """Who holds which device, by its uuid. With a `problem` it is the last that was known."""

    by_device: Mapping[str, tuple[Holder, ...]] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a process is. Neither foreign nor with a uid: nobody knows."""

    foreign: bool = False
    pod_uid: str | None = None
    namespace: str | None = None
    pod: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything of one look at the node."""

    driver: DriverReading | DriverTrouble
    holders: Holders = Holders()
    owners: Mapping[tuple[str, int], Owner] = field(default_factory=dict)
    """By uuid of the device and pid."""
    commands: Mapping[int, str] = field(default_factory=dict)
    host_memory: Memory | None = None
    boot_id: str | None = None
