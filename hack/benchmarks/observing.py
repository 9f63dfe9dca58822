"""When objects appear, seen from outside by watches of the benchmark's own, and who wrote what, from the audit log."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
OPERATOR = "system:serviceaccount:berth-system:berth-operator"


@dataclass
class Appearances:
    """Seconds (monotonic) at which each object of a kind was first seen, by namespace and name.

    A ReplicaSet goes by the name of the Deployment that owns it.
    """

    seen: dict[str, dict[str, float]] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, plural: str) -> dict[str, float]:
        """The times of one resource."""
        return self.seen.setdefault(plural, {})

    def count(self, plural: str, namespace: str) -> int:
        """How many of a resource have been seen in a namespace."""
        return sum(key.startswith(namespace + "/") for key in self.of(plural))


async def watch(client: ApiClient, path: str, plural: str, appearances: Appearances) -> None:
    """Record when objects appear, until cancelled. Only what is created from now on counts."""
    session: aiohttp.ClientSession = client.rest_client.pool_manager
    times = appearances.of(plural)
    async with session.get(
        client.configuration.host + path,
        params={"watch": "true", "allowWatchBookmarks": "true"},
        timeout=aiohttp.ClientTimeout(total=None),
    ) as answer:
        answer.raise_for_status()
        buffer = b""
        async for chunk in answer.content.iter_any():
            now = time.monotonic()
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["type"] != "ADDED":
                    continue
                metadata = event["object"]["metadata"]
                name = metadata["name"]
                if plural == "replicasets":
                    name = (metadata.get("ownerReferences") or [{"name": name}])[0]["name"]
                times.setdefault(f"{metadata['namespace']}/{name}", now)
            appearances.arrived.set()


@dataclass(frozen=True)
class AuditMark:
    """A place in the audit log."""

    offset: int


class AuditLog:
    """What the API server was asked, from its audit log."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> AuditMark:
        """The present end."""
        return AuditMark(self._path.stat().st_size)

    def since(self, mark: AuditMark, user: str = OPERATOR) -> list[dict[str, Any]]:
        """The requests of a user that ended since then, those for Leases apart."""
        with self._path.open("rb") as file:
            file.seek(mark.offset)
            lines: Iterable[bytes] = file.read().splitlines()
        events = (json.loads(line) for line in lines if user.encode() in line and b'"ResponseComplete"' in line)
        return [
            event
            for event in events
            if event["user"]["username"] == user and (event.get("objectRef") or {}).get("resource") != "leases"
        ]


def by_verb(events: Iterable[dict[str, Any]]) -> Counter[str]:
    """Requests by verb and resource, for example `patch deployments`."""
    counts: Counter[str] = Counter()
    for event in events:
        reference = event.get("objectRef") or {}
        resource = reference.get("resource", event.get("requestURI", "?"))
        subresource = reference.get("subresource")
        counts[f"{event['verb']} {resource}{'/' + subresource if subresource else ''}"] += 1
    return counts


def writes(events: Iterable[dict[str, Any]]) -> int:
    """How many of the requests are writes."""
    return sum(event["verb"] in WRITES for event in events)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, in milliseconds for seconds given."""
    ordered = sorted(values)
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000, 1)


class ProcessMeter:
    """CPU seconds and memory of a process, from /proc."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def cpu_seconds(self) -> float:
        """Seconds of CPU used so far, user and system."""
        fields = (self._folder / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def rss_mib(self) -> float:
        """Resident memory in MiB."""
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return round(int(line.split()[1]) / 1024, 1)
        return 0.0
