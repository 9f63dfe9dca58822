"""What to write so that the observed children become the desired ones, and whose objects are left alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from berth.planning import names
from berth.planning.equality import differences
from berth.planning.plan import Apply, Delete
from berth.planning.policy import Policy
from berth.planning.reasons import Reason
from berth.planning.world import Child, Manifest, Refusal, Subject

_PASSING = (Reason.QUOTA_EXCEEDED, Reason.FORBIDDEN)
"""Refusals that somebody else than the person who wrote the Model may lift at any time."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The writes, and what stands in the way of them."""

    writes: tuple[Apply | Delete, ...]
    invalid: tuple[str, str] | None = None
    """Reason and message when an object cannot be made until a person does something."""
    refused: tuple[str, str] | None = None
    """Reason and message when the API server refuses for now."""
    look_again: float | None = None


def plan_changes(
    subject: Subject,
    desired: Sequence[Manifest],
    observed: Mapping[str, Child],
    refusals: Mapping[str, Refusal],
    stubborn: Mapping[str, tuple[str, frozenset[str]]],
    policy: Policy,
    now: datetime,
) -> Changes:
    """The writes for the children of one Model or ModelCache. All mappings are by kind.

    Only objects seen with our controller ownerReference are applied with force and deleted. Another's object is
    never written: `NameConflict` says so. The first Deployment waits until everything else has been seen: no server
    starts before it is guarded and reachable, and a thousand new Models get their quick objects before the control
    plane is busy with a thousand Pods.
    """
    writes: list[Apply | Delete] = []
    invalid: tuple[str, str] | None = None
    refused: tuple[str, str] | None = None
    waits: list[float] = []
    wanted_kinds = {manifest["kind"] for manifest in desired}
    named_alike = [child for kind, child in observed.items() if kind in wanted_kinds]
    conflicts = [conflict for child in named_alike if (conflict := _foreign(subject, child))]
    if conflicts:
        invalid = (Reason.NAME_CONFLICT, conflicts[0])
    for manifest in desired:
        kind = manifest["kind"]
        child, refusal = observed.get(kind), refusals.get(kind)
        if conflicts and (child is None or _foreign(subject, child)):
            continue  # no server is started that could not be reached under its name
        if refusal is not None and refusal.applied_hash == _hash(manifest):
            if refusal.reason in _PASSING:
                refused = (refusal.reason, refusal.message)
            else:
                invalid = (refusal.reason, refusal.message)
            age = (now - refusal.at).total_seconds()
            if 0 <= age < policy.refusal_interval:
                waits.append(policy.refusal_interval - age)
                continue
        write = _apply(subject, manifest, child, stubborn.get(kind))
        if write is not None and kind == "Deployment" and child is None and wanted_kinds - observed.keys() != {kind}:
            waits += [0.0] if writes else []  # without writes something else has to happen first
        elif write is not None:
            writes.append(write)
    for kind, child in observed.items():
        if kind not in wanted_kinds and child.owner_uid == subject.uid and not child.deleting:
            writes.append(Delete(kind, child.namespace, child.name, child.uid, child.resource_version))
    return Changes(tuple(writes), invalid, refused, min(waits, default=None))


def _hash(manifest: Manifest) -> str:
    value: str = manifest["metadata"]["annotations"][names.APPLIED_ANNOTATION]
    return value


def _foreign(subject: Subject, child: Child) -> str | None:
    """Why an object with our child's name is another's; None when it is ours, or was and lost its owner."""
    if child.owner_uid == subject.uid:
        return None
    if child.deleting:
        return None  # it is about to go: nothing is written to it meanwhile, see _apply
    if not child.owner_uid and _named_owner(subject, child) == subject.name:
        return None  # orphaned on purpose, or a claim that outlives its cache: the recreated one adopts its own
    if left_by_predecessor(subject, child):
        return None
    whose = f"controlled by {child.owner_kind} of another owner" if child.owner_uid else "not made by Berth"
    return (
        f"{child.kind} {child.name} exists already and is {whose}; Berth leaves it alone. "
        f"Give the {subject.kind} another metadata.name or remove that {child.kind}"
    )


def _named_owner(subject: Subject, child: Child) -> str:
    """Whose child its labels say it is."""
    return child.model if subject.kind == "Model" else child.cache


def left_by_predecessor(subject: Subject, child: Child) -> bool:
    """Whether it belongs to a deleted namesake: the garbage collector is about to remove it."""
    namesake = child.owner_kind == subject.kind and _named_owner(subject, child) == subject.name
    return namesake and child.owner_uid != subject.uid


def _apply(
    subject: Subject, manifest: Manifest, child: Child | None, stubborn: tuple[str, frozenset[str]] | None
) -> Apply | None:
    if child is None:
        return Apply(manifest, force=False)
    if child.deleting or left_by_predecessor(subject, child):
        return None
    seen = child.manifest()
    unequal = frozenset(differences(manifest, seen))
    if not unequal or (stubborn is not None and stubborn[0] == _hash(manifest) and unequal <= stubborn[1]):
        return None
    # Both: with the resourceVersion alone, an object that is gone meanwhile would be made anew.
    version = {"uid": child.uid, "resourceVersion": child.resource_version}
    versioned = {**manifest, "metadata": {**manifest["metadata"], **version}}
    return Apply(versioned, force=child.owner_uid == subject.uid)
