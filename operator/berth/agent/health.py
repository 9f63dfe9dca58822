"""Whether a GPU can be given work. Pure.

Newer drivers say themselves what a GPU needs (the recovery action), and that is believed. With older ones an XID error
speaks, unless it is of those that come from a program's own mistakes or that the hardware has dealt with: the ones
that NVIDIA's device plugin ignores as well, and those of repaired or contained memory errors.
"""

from dataclasses import dataclass

from berth.agent.readings import Device

HARMLESS_XIDS = frozenset(
    {
        13,  # graphics engine exception: an access out of bounds
        31,  # page fault of a program
        43,  # a program's channel was stopped
        45,  # clean-up after a program that ended
        63,  # broken memory was replaced by spare one
        68,  # video processor exception
        92,  # many memory errors that were corrected
        94,  # a memory error that hit one program only
        109,  # a program's context switch took too long
    }
)

_RECOVERY = {
    1: ("ResetRequired", "reset it: nvidia-smi --gpu-reset, with nothing running on it"),
    2: ("RebootRequired", "reboot the node"),
    3: ("DrainRequired", "stop the programs on it that talk to other GPUs"),
    4: ("ResetRequired", "drain it, then reset it: nvidia-smi --gpu-reset"),
    5: ("RecoveryRequired", "recover the IMEX domain"),
    6: ("ResetRequired", "reset its PCI bus"),
    7: ("RebootRequired", "reboot the system"),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a GPU, and what to do about it; all empty when nothing is."""

    reason: str | None = None
    message: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether it can be given work."""
        return self.reason is None


def verdict(device: Device) -> Verdict:
    """What a look at a GPU says of its health."""
    if device.lost is not None:
        return lost(device.lost)
    if device.recovery:
        reason, advice = _RECOVERY.get(device.recovery, ("RecoveryRequired", f"see recovery action {device.recovery}"))
        return Verdict(reason, f"the driver asks to recover this GPU: {advice}")
    if device.remapping_failed:
        return Verdict("MemoryBroken", "broken memory could not be replaced by spare one: exchange the GPU")
    if device.recovery is None:
        bad = [xid for xid in device.xids if xid.number not in HARMLESS_XIDS]
        if bad:
            return Verdict(
                "XidError",
                f"the driver reported Xid {bad[-1].number}: look it up in NVIDIA's list of Xid errors, "
                "recover the GPU and restart the agent's Pod on this node",
            )
    return Verdict()


def lost(how: str) -> Verdict:
    """What is wrong with a GPU that was there and does not answer any more."""
    return Verdict("GPULost", f"this GPU does not answer ({how}): drain the node, then reset the GPU or reboot")


def missing() -> Verdict:
    """What is wrong with a GPU that the driver showed since the node's last boot and shows no more."""
    return lost("the driver does not show it any more")
