"""The claim of a ModelCache: whether its volume can be used, and by how many nodes at once."""

from dataclasses import dataclass

from berth.api.model_cache import ModelCacheSpec
from berth.planning import names
from berth.planning.cache_objects import Volume
from berth.planning.reasons import Reason
from berth.planning.world import Child


@dataclass(frozen=True, slots=True)
class ClaimFacts:
    """What is known of the claim."""

    name: str
    access_mode: str = ""
    capacity: str = ""
    bound: bool = False
    problem: tuple[Reason, str] | None = None
    """Why the volume cannot be used."""
    final: bool = False
    """Whether only a person can mend that."""

    @property
    def volume(self) -> Volume:
        """The volume as Pods mount it."""
        return Volume(self.name, one_node=self.access_mode != "ReadWriteMany")


def claim_name(cache: str, spec: ModelCacheSpec) -> str:
    """Name of the claim: the person's, or the one that Berth makes."""
    return spec.storage.claim or names.cache_object(cache)


def look_at_claim(cache: str, spec: ModelCacheSpec, claim: Child | None) -> ClaimFacts:
    """What is known of the claim; `claim` is the observed one."""
    name = claim_name(cache, spec)
    if claim is None:
        wanted = [mode.value for mode in spec.storage.access_modes or ()]
        mode = _widest(wanted or ["ReadWriteOnce"])
        if spec.storage.claim is None:
            return ClaimFacts(name, mode, problem=(Reason.CREATING, f"the claim {name} is being made"))
        words = f"PersistentVolumeClaim {name} does not exist: create it, or set storage.size to have one made"
        return ClaimFacts(name, mode, problem=(Reason.CLAIM_NOT_FOUND, words))
    manifest = claim.manifest()
    status, declared = manifest.get("status") or {}, manifest.get("spec") or {}
    modes = status.get("accessModes") or declared.get("accessModes") or []
    facts = ClaimFacts(
        name,
        _widest(modes),
        (status.get("capacity") or {}).get("storage", ""),
        bound=status.get("phase") == "Bound",
    )
    problem = _problem(name, modes, status.get("phase", ""), deleting=claim.deleting, ours=spec.storage.claim is None)
    if problem is None:
        return facts
    final = problem[0] is not Reason.CREATING
    return ClaimFacts(name, facts.access_mode, facts.capacity, facts.bound, problem, final)


def _problem(name: str, modes: list[str], phase: str, *, deleting: bool, ours: bool) -> tuple[Reason, str] | None:
    if modes and not {"ReadWriteOnce", "ReadWriteMany"} & set(modes):
        return (
            Reason.ACCESS_MODE_UNSUPPORTED,
            f"PersistentVolumeClaim {name} is {', '.join(modes)}, and downloads have to write while servers read: "
            "use a claim with ReadWriteOnce or ReadWriteMany",
        )
    if phase == "Lost":
        return Reason.CLAIM_LOST, f"the volume behind PersistentVolumeClaim {name} is gone: restore it"
    if deleting:
        then = "it is made anew afterwards" if ours else "create it again"
        return Reason.CREATING, f"PersistentVolumeClaim {name} is being deleted: {then}"
    return None


def _widest(modes: list[str]) -> str:
    if "ReadWriteMany" in modes:
        return "ReadWriteMany"
    return "ReadWriteOnce" if "ReadWriteOnce" in modes else next(iter(modes), "")
