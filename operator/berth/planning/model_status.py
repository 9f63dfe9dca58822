"""The status of a Model as it is written: the verdict, stamped, with the numbers beside it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from berth.api.model import ModelSpec
from berth.api.model_status import LoadState, Phase
from berth.backends.registry import backend_for
from berth.planning import names
from berth.planning.conditions import CONDITIONS, Facts, Verdict, stamp
from berth.planning.failures import Failure, Known
from berth.planning.gpu_standing import GpuStanding
from berth.planning.idling import idle_note
from berth.planning.load_questions import can_be_asked
from berth.planning.pods import Pod
from berth.planning.provisioning import Provisioning, Way
from berth.planning.reasons import Reason
from berth.planning.timeline import phase_since, timeline
from berth.planning.times import format_time, parse_time
from berth.planning.world import ModelWorld, Subject


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
    provisioning: Provisioning | None = None,
    gpus: GpuStanding | None = None,
    recovery: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole status, the `same` as the observed one when nothing is new. `spec` is None when it is invalid."""
    previous = subject.status
    living = [pod for pod in pods if pod.living]
    ready = facts.ready
    notes = (*backend_for(spec.backend).notes, *filter(None, [idle_note(spec)])) if spec else ()
    status: dict[str, Any] = {
        "observedGeneration": subject.generation,
        "phase": verdict.phase.value,
        "conditions": stamp(
            verdict,
            subject.generation,
            previous.get("conditions") or (),
            format_time(now),
            notes,
            _provisioned(provisioning, facts) if provisioning else None,
            gpus.condition if gpus else None,
        ),
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
    if gpus is not None:
        status |= _gpu_fields(gpus, sorted({pod.node for pod in living if pod.node}))
    failure = _last_failure(previous.get("lastFailure"), latest)
    if failure:
        status["lastFailure"] = failure
    if recovery:
        status["recovery"] = dict(recovery)
    if provisioning is not None and provisioning.shown:
        status["provisioning"] = dict(provisioning.shown)
    admitted_at = now if gpus is not None and gpus.admitted else None
    if spec is None:
        status |= {field: previous[field] for field in ("provisioning", "load", "start") if field in previous}
    there = _are_there(provisioning, facts)
    if reached := timeline(subject, verdict, facts, pods, now, provisioned=there, admitted_at=admitted_at):
        status["timeline"] = reached
    if since := phase_since(subject, verdict.phase, now):
        status["phaseSince"] = since
    if upgrade_available:
        status["upgradeAvailable"] = True
    return status


def _gpu_fields(gpus: GpuStanding, nodes: list[str]) -> dict[str, Any]:
    """What the status of a Model with GPUs says of them, and of the queue for them."""
    figures = {**gpus.figures, **({"nodes": nodes} if nodes else {})}
    fields: dict[str, Any] = {"gpu": figures} if figures else {}
    if gpus.admitted is not None:
        fields["admittedReplicas"] = gpus.admitted
    if gpus.queue is not None:
        fields["queue"] = dict(gpus.queue)
    return fields


def shown_load(world: ModelWorld, spec: ModelSpec) -> Mapping[str, Any] | None:
    """The load as the status shows it; what was written last while this process has not asked the servers."""
    if not any(can_be_asked(pod) for pod in world.pods):
        return None
    if backend_for(spec.backend).load(spec) is None:
        return {"state": LoadState.UNKNOWN.value}  # for ever: nobody is asked
    if world.load is None:
        shown: Mapping[str, Any] | None = world.subject.status.get("load")
        return shown
    state, since, mark = world.load.shown()
    # Without idle.after nobody wants to know what the servers had done until then.
    return {"state": state.value, "since": since, **({"mark": mark} if mark and spec.idle else {})}


def _are_there(provisioning: Provisioning | None, facts: Facts) -> bool:
    """Whether weights that have to come from somewhere have come."""
    if provisioning is None or provisioning.way is Way.MOUNTED or not provisioning.there:
        return False
    return provisioning.way is Way.CACHE or facts.started or facts.ready > 0


def _provisioned(provisioning: Provisioning, facts: Facts) -> tuple[bool, str, str] | None:
    """The condition Provisioned: whether it holds, reason and message. None for weights that are mounted."""
    if provisioning.way is Way.MOUNTED:
        return None
    if _are_there(provisioning, facts):
        where = f"ModelCache {provisioning.stored.cache}" if provisioning.stored else "the volume of each Pod"
        return True, Reason.WEIGHTS_PRESENT, f"the weights are on {where}"
    missing = facts.weights_failed or facts.weights_awaited
    reason, message = missing or (
        Reason.WAITING_FOR_DOWNLOAD,
        "each Pod downloads the weights before its server starts",
    )
    return False, reason, message


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


def only_progress_differs(previous: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two statuses differ in nothing but how far a download is, and the words for it."""
    return _without_progress(previous) == _without_progress(wanted)


def _without_progress(status: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in _wordless(status).items() if key != "provisioning"}


def _plain(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = {c["type"]: c for c in status.get("conditions") or () if c["type"] in CONDITIONS}
    return {**status, "conditions": conditions}


def _wordless(status: Mapping[str, Any]) -> dict[str, Any]:
    plain = _plain(status)
    plain.pop("lastFailure", None)
    if queue := plain.pop("queue", None):
        plain["queue"] = {name: value for name, value in queue.items() if name not in ("position", "message")}
    conditions = plain["conditions"].items()
    return {**plain, "conditions": {kind: {**c, "message": ""} for kind, c in conditions}}
