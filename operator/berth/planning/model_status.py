"""The status of a Model as it is written: the verdict, stamped, with the numbers beside it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from berth.api.model import ModelSpec
from berth.api.model_status import Phase
from berth.backends.registry import backend_for
from berth.planning import names
from berth.planning.conditions import CONDITIONS, Facts, Verdict, stamp
from berth.planning.failures import Failure, Known
from berth.planning.reasons import Reason
from berth.planning.world import Pod, Subject, format_time, parse_time


def service_url(subject: Subject, spec: ModelSpec) -> str:
    """Where the Model answers within the cluster."""
    path = spec.custom.protocol_path if spec.custom and spec.custom.protocol_path else ""
    return f"http://{subject.name}.{subject.namespace}.svc{path}"


def build_status(
    subject: Subject,
    spec: ModelSpec | None,
    verdict: Verdict,
    facts: Facts,
    pods: Sequence[Pod],
    latest: Failure | None,
    upgrade_available: bool,
    now: datetime,
) -> dict[str, Any]:
    """The whole status, the `same` as the observed one when nothing is new. `spec` is None when it is invalid."""
    previous = subject.status
    living = [pod for pod in pods if pod.living]
    ready = facts.ready
    notes = backend_for(spec.backend).notes if spec else ()
    status: dict[str, Any] = {
        "observedGeneration": subject.generation,
        "phase": verdict.phase.value,
        "conditions": stamp(verdict, subject.generation, previous.get("conditions") or (), format_time(now), notes),
        "selector": ",".join(f"{key}={value}" for key, value in sorted(names.server_selector(subject.name).items())),
        "replicas": sum(not pod.deleting for pod in living),
        "readyReplicas": ready,
        "ready": f"{ready}/{facts.wanted if spec else previous.get('ready', '0/0').partition('/')[2]}",
        "restarts": sum(pod.restarts for pod in living),
    }
    if spec is not None:
        status["url"] = service_url(subject, spec)
    elif "url" in previous:
        status["url"] = previous["url"]
    nodes = sorted({pod.node for pod in living if pod.node})
    if nodes and spec is not None and spec.gpus.count:
        status["gpu"] = {"nodes": nodes}
    failure = _last_failure(previous.get("lastFailure"), latest)
    if failure:
        status["lastFailure"] = failure
    timeline = _timeline(subject, verdict, pods, now)
    if timeline:
        status["timeline"] = timeline
    if upgrade_available:
        status["upgradeAvailable"] = True
    return status


def _last_failure(previous: Mapping[str, Any] | None, failure: Failure | None) -> Mapping[str, Any] | None:
    """The latest failure; it stays for reading after recovery."""
    if failure is None:
        return previous
    latest: dict[str, Any] = {"reason": str(failure.reason), "message": failure.message}
    if failure.exit_code is not None:
        latest["exitCode"] = failure.exit_code
    if failure.at is not None:
        latest["at"] = format_time(failure.at)
        if previous and previous.get("at", "") > latest["at"] and not failure.final:
            return previous
    return latest


def known_failure(status: Mapping[str, Any]) -> Known | None:
    """The failure that the status shows, for `failures.diagnose`."""
    shown = status.get("lastFailure") or {}
    at = parse_time(shown.get("at"))
    return Known(shown["reason"], at) if at is not None else None


def _timeline(subject: Subject, verdict: Verdict, pods: Sequence[Pod], now: datetime) -> dict[str, str]:
    """When each step of the latest start was reached; a start after a stop, or in place, begins a new timeline."""
    before = subject.status.get("timeline") or {}
    was = subject.status.get("phase", Phase.PENDING)
    if verdict.phase in (Phase.STOPPED, Phase.FAILED, Phase.DRAINING):
        return dict(before)
    if was in (Phase.STOPPED, Phase.FAILED, Phase.DRAINING):
        before = {"queuedAt": format_time(now)}
    timeline = dict(before)
    if "queuedAt" not in timeline:
        timeline["queuedAt"] = format_time(subject.created_at or now)
    since = timeline["queuedAt"]
    servers = (pod.server for pod in pods if not pod.deleting)
    started = [format_time(server.running_since) for server in servers if server and server.running_since]
    if "startedAt" not in timeline and started:
        timeline["startedAt"] = max(min(started), since)
    ready = [format_time(pod.ready_since) for pod in pods if pod.ready_since and not pod.deleting]
    if "readyAt" not in timeline and ready:
        timeline["readyAt"] = max(min(ready), since)
    return timeline


def first_status_can_wait(previous: Mapping[str, Any], verdict: Verdict) -> bool:
    """Whether the defaults of the CRD (`Pending`, observedGeneration -1) still say all there is to say."""
    fresh = previous.get("observedGeneration", -1) == -1
    return fresh and verdict.phase is Phase.PENDING and verdict.reason == Reason.CREATING


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two statuses say the same. The order of conditions and the conditions of others say nothing."""
    return _plain(one) == _plain(other)


def only_words_differ(previous: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two statuses differ in nothing but messages and the latest failure."""
    return _wordless(previous) == _wordless(wanted)


def _plain(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = {c["type"]: c for c in status.get("conditions") or () if c["type"] in CONDITIONS}
    return {**status, "conditions": conditions}


def _wordless(status: Mapping[str, Any]) -> dict[str, Any]:
    plain = _plain(status)
    plain.pop("lastFailure", None)
    conditions = plain["conditions"].items()
    return {**plain, "conditions": {kind: {**c, "message": ""} for kind, c in conditions}}
