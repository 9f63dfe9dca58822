"""The status of a Model as it is written: the verdict, stamped, with the numbers beside it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from berth.api.model import ModelSpec
from berth.api.model_status import Phase
from berth.planning import names
from berth.planning.conditions import Facts, Verdict, stamp
from berth.planning.world import Pod, Subject, format_time


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
    upgrade_available: bool,
    now: datetime,
) -> dict[str, Any]:
    """The whole status, equal to the observed one when nothing is new. `spec` is None when it is invalid."""
    previous = subject.status
    living = [pod for pod in pods if pod.living]
    ready = facts.ready
    status: dict[str, Any] = {
        "observedGeneration": subject.generation,
        "phase": verdict.phase.value,
        "conditions": stamp(verdict, subject.generation, previous.get("conditions") or (), format_time(now)),
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
    failure = _last_failure(previous.get("lastFailure"), facts)
    if failure:
        status["lastFailure"] = failure
    timeline = _timeline(subject, verdict, pods, now)
    if timeline:
        status["timeline"] = timeline
    if upgrade_available:
        status["upgradeAvailable"] = True
    return status


def _last_failure(previous: Mapping[str, Any] | None, facts: Facts) -> Mapping[str, Any] | None:
    """The latest failure; it stays for reading after recovery."""
    failure = facts.failure
    if failure is None:
        return previous
    latest: dict[str, Any] = {"reason": failure.reason, "message": failure.message}
    if failure.exit_code is not None:
        latest["exitCode"] = failure.exit_code
    if failure.at is not None:
        latest["at"] = format_time(failure.at)
        if previous and previous.get("at", "") > latest["at"]:
            return previous
    return latest


def _timeline(subject: Subject, verdict: Verdict, pods: Sequence[Pod], now: datetime) -> dict[str, str]:
    """When each step of the latest start was reached; a new start after a stop begins a new timeline."""
    before = subject.status.get("timeline") or {}
    was = subject.status.get("phase", Phase.PENDING)
    if verdict.phase in (Phase.STOPPED, Phase.FAILED, Phase.DRAINING):
        return dict(before)
    if was in (Phase.STOPPED, Phase.FAILED):
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
    return fresh and verdict.phase is Phase.PENDING and verdict.reason == "Creating"


def only_words_differ(previous: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two statuses differ in nothing but the messages of their conditions."""
    return _wordless(previous) == _wordless(wanted)


def _wordless(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = [{k: v for k, v in c.items() if k != "message"} for c in status.get("conditions") or ()]
    rest = {k: v for k, v in status.items() if k not in ("conditions", "lastFailure")}
    return {**rest, "conditions": conditions}
