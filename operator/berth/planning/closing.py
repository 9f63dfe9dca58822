"""Selectors first: before all servers of a Model are stopped, its Service stops sending requests to them.

kube-proxy sends new connections to servers that are ending when no others are left. A Service without endpoints
refuses them at once, and clients go elsewhere or come back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from berth.planning import names
from berth.planning.world import Child, ModelWorld

CLOSED_SECONDS = 2.0
"""How long a Service has to be closed until its servers are told to end: every node has to hear of it."""


@dataclass(frozen=True, slots=True)
class Door:
    """Whether the Service of a Model lets requests in."""

    closed_since: str = ""
    """When it was closed, as it is written down on it; empty while it is open."""
    wait: float | None = None
    """Seconds until the servers behind it may be stopped; None when nothing has to be waited for."""

    @property
    def open(self) -> bool:
        """Whether requests come in."""
        return not self.closed_since


def door(
    replicas: int, world: ModelWorld, deployment: Mapping[str, Any] | None, now: datetime, *, forced: bool = False
) -> Door:
    """What becomes of the Service when the observed `deployment` is to have so many `replicas`.

    The time is on the Service itself, so whoever leads next knows it; where the clock was set back, it begins anew.
    `forced` says that nothing is waited for.
    """
    if replicas > 0:
        return Door()
    service = world.child("Service")
    written, since = _closed(service)
    refused = any(refusal.kind == "Service" for refusal in world.refusals)
    if forced or refused or not _serves(world, deployment) or not _obeys(service, world):
        # What was refused is tried again after a while if it is the same then: the time must not make it another.
        return Door(written or _stamp((refused and world.subject.created_at) or now))
    waited = (now - since).total_seconds() if since is not None else -1.0
    if waited < 0:
        return Door(_stamp(now), CLOSED_SECONDS)
    return Door(written, CLOSED_SECONDS - waited if waited < CLOSED_SECONDS else None)


def _closed(service: Child | None) -> tuple[str, datetime | None]:
    """The time that is written on a closed Service, as text and as a time; nothing for an open one."""
    manifest = service.manifest() if service is not None else {}
    if names.CLOSED_LABEL not in ((manifest.get("spec") or {}).get("selector") or {}):
        return "", None
    written = (manifest["metadata"].get("annotations") or {}).get(names.CLOSED_SINCE_ANNOTATION, "")
    try:
        since = datetime.fromisoformat(written)
    except ValueError:
        return "", None
    return (written, since) if since.tzinfo is not None else ("", None)


def _serves(world: ModelWorld, deployment: Mapping[str, Any] | None) -> bool:
    """Whether there is a server that requests may be on their way to."""
    replicas = ((deployment or {}).get("spec") or {}).get("replicas")
    return bool(replicas) and any(pod.ready and not pod.deleting for pod in world.pods)


def _obeys(service: Child | None, world: ModelWorld) -> bool:
    """Whether the Service becomes what we want: one that is another's or lost must hold up no stop."""
    ours = service is not None and not service.deleting and service.owner_uid == world.subject.uid
    return ours and "Service" not in world.stubborn


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="milliseconds")
