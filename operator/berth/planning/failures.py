"""What is wrong with a Pod, from what the kubelet and the scheduler say, and whether waiting can mend it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from berth.planning import names
from berth.planning.download_reasons import DownloadReason
from berth.planning.last_words import broken_gpu, lack_of_gpu_memory
from berth.planning.own_download import own_failure
from berth.planning.pod_ends import container_end, end_of, ended_at
from berth.planning.pods import Container, Pod, Termination
from berth.planning.policy import Policy
from berth.planning.reasons import Reason
from berth.planning.redaction import redact

_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_MISSING_SECRET = re.compile(r"secret \"[^\"]+\" not found|couldn't find key \S+ in Secret ", re.IGNORECASE)
_LAST_LINES = 5
_LONGEST_MESSAGE = 1000
_STOPPED_BY_KUBELET = (0, 137, 143)
"""Exit codes of a server that was told to end: it does so, is killed, or dies of the signal."""
_NEVER_STARTED = ("StartError", "ContainerCannotRun")
"""Reasons of a container whose process could not be made."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something wrong with a Pod."""

    reason: Reason | DownloadReason
    message: str
    exit_code: int | None = None
    at: datetime | None = None
    final: bool = False
    """Whether a person is needed: the patience or the budget is spent."""
    look_again: float | None = None
    """Seconds until the patience is spent, when time alone decides."""


@dataclass(frozen=True, slots=True)
class Known:
    """The failure that the status shows already. The kubelet does not say since when an image cannot be pulled, so
    what was seen first is where patience begins.
    """

    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What matters of everything around the Pod."""

    lost_nodes: frozenset[str] = frozenset()
    """Names of the Nodes that do not answer."""
    earlier: int = 0
    """Pods before this one that have spent some of the budget."""
    memory_limited: bool = True
    """Whether its server has a limit of host memory."""
    sick_gpus: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with a GPU that a Pod holds, by uid of the Pod."""


_ORDINARY = Circumstances()


def diagnose(
    pod: Pod,
    startup_timeout: float,
    policy: Policy,
    now: datetime,
    known: Known | None = None,
    around: Circumstances = _ORDINARY,
) -> Failure | None:
    """What is wrong with the Pod at this moment; None when nothing is known to be.

    `startup_timeout` is in seconds. A Pod that the scheduler cannot place is no failure: see `unschedulable`.
    """
    end = end_of(pod, around.lost_nodes)
    if end is not None:
        return Failure(end[0], shown(end[1]), at=ended_at(pod))  # another one takes its place
    if pod.deleting:
        return None
    if pod.living and pod.node in around.lost_nodes:
        return _silent_node(pod)
    if pod.living and not pod.ready and pod.uid in around.sick_gpus:
        return Failure(Reason.GPU_FAULT, shown(around.sick_gpus[pod.uid]), at=pod.unready_since or pod.created_at)
    for container in pod.containers:
        failure = _waiting(pod, container, policy, now, known) or _ended(
            pod, container, startup_timeout, policy, now, known, around
        )
        if failure is not None:
            return failure
    return None


def _silent_node(pod: Pod) -> Failure:
    """Its processes may run on and nobody knows: Kubernetes waits as long as the Pod tolerates that."""
    message = (
        f"node {pod.node} does not answer, so nobody knows whether the server runs. If the node does not come back, "
        "Kubernetes replaces the Pod when its toleration ends, by default after 5 minutes"
    )
    return Failure(Reason.NODE_LOST, message, at=pod.unready_since)


def worst(failures: Iterable[Failure], known: Known | None = None) -> Failure | None:
    """The failure to show of several: a final one first, then what is shown already, then the latest."""
    reason = known.reason if known else ""
    return max(
        failures,
        key=lambda f: (f.final, f.reason == reason, f.at.timestamp() if f.at else 0.0, f.message),
        default=None,
    )


def unschedulable(pods: Iterable[Pod]) -> str:
    """The scheduler's own words about the first Pod it cannot place; empty when it has none."""
    return next((p.unschedulable_message for p in pods if p.unschedulable_message and not p.scheduled), "")


def shown(text: str) -> str:
    """Somebody else's words, fit for a status: without tokens and of bounded length."""
    text = redact(text)
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 1]}…"


def last_lines(ended: Termination) -> str:
    """The last lines that the container left as its termination message, redacted and of bounded length."""
    lines = [line.strip() for line in redact(ended.message).splitlines() if line.strip()]
    return " | ".join(lines[-_LAST_LINES:])[-_LONGEST_MESSAGE:]


def _waiting(pod: Pod, container: Container, policy: Policy, now: datetime, known: Known | None) -> Failure | None:
    waiting, message = container.waiting_reason, shown(container.waiting_message)
    if container.name in (names.PROVISIONER_CONTAINER, names.DRAIN_CONTAINER):
        image = "the operator's flag --provisioner-image"
    else:
        image = "serving.image"
    if waiting == "InvalidImageName":
        advice = f"{message}. Correct {image}"
        return _patient(Reason.IMAGE_PULL_FAILED, advice, 0, pod, now, known)
    if waiting in _IMAGE_REASONS:
        advice = (
            f"{message or 'the image cannot be pulled'}. Check {image} and, for a private registry, the pull secret"
        )
        return _patient(Reason.IMAGE_PULL_FAILED, advice, policy.image_pull_patience, pod, now, known)
    if waiting == "CreateContainerConfigError":
        if _MISSING_SECRET.search(message):
            advice = f"{message}. Create it in namespace {pod.namespace}, or correct the reference"
            return _patient(Reason.SECRET_NOT_FOUND, advice, policy.config_patience, pod, now, known)
        return _patient(Reason.CONFIGURATION_ERROR, message, policy.config_patience, pod, now, known)
    if waiting in ("CreateContainerError", "RunContainerError"):
        patience = 0 if container.restarts >= policy.crash_budget else policy.config_patience
        return _patient(Reason.CONTAINER_START_FAILED, message, patience, pod, now, known)
    return None


def _patient(reason: Reason, message: str, patience: float, pod: Pod, now: datetime, known: Known | None) -> Failure:
    """A failure that is final once it has lasted as long as `patience`, counted from when it was first seen."""
    moments = [pod.created_at, pod.scheduled_since, *map(container_end, pod.containers)]
    began = max(moment for moment in (*moments, now.replace(microsecond=0)) if moment is not None)
    if known is not None and known.reason == reason and all(m is None or m <= known.at for m in moments):
        began = known.at
    left = patience - max(0.0, (now - began).total_seconds())
    return Failure(reason, message, at=began, final=left <= 0, look_again=left if left > 0 else None)


def _ended(
    pod: Pod,
    container: Container,
    startup_timeout: float,
    policy: Policy,
    now: datetime,
    known: Known | None,
    around: Circumstances,
) -> Failure | None:
    if container.ready and not container.initial:
        return None
    if container.running_since is not None and not container.started and not container.initial:
        running = (now - container.running_since).total_seconds()
        if running > startup_timeout:
            return _startup_timeout(startup_timeout, container.running_since, final=False)
    ended = container.terminated or container.last_terminated
    if container.running_since is not None and container.started and container.terminated is None:
        return _unresponsive(pod, container)  # if that is no reason to worry, it has recovered from what was before
    if ended is None or (container.initial and ended.exit_code == 0):
        return None
    spent = _spent(pod, container, ended, policy, now, around.earlier)
    if container.name == names.PROVISIONER_CONTAINER and (own := own_failure(pod)) is not None:
        reason, message, final = own
        return Failure(reason, shown(message), ended.exit_code, ended.finished_at, final=final or spent)
    if not container.initial and ended.reason != "OOMKilled" and _never_answered(pod, ended, startup_timeout):
        final = spent or container.restarts + around.earlier >= policy.startup_budget
        return _startup_timeout(startup_timeout, ended.finished_at, final=final, exit_code=ended.exit_code)
    reason, message = _why_it_ended(pod, container, ended, known, around)
    return Failure(reason, message, ended.exit_code, ended.finished_at, final=spent)


def _why_it_ended(
    pod: Pod, container: Container, ended: Termination, known: Known | None, around: Circumstances
) -> tuple[Reason, str]:
    """Reason and sentence for a container that ended by itself or was ended."""
    lines = last_lines(ended)
    if ended.reason == "OOMKilled":
        if around.memory_limited:
            needed = f"container {container.name} needed more host memory than its limit. Raise limits.memory or lower"
        else:
            culprit = f"container {container.name} has no limit"
            needed = f"node {pod.node} ran out of memory, and {culprit}. Set limits.memory, or lower"
        return Reason.OUT_OF_MEMORY, f"{needed} serving.contextLength"
    if lack_of_gpu_memory(ended.message):
        return Reason.OUT_OF_MEMORY, (
            "the GPU has too little memory for this model. Lower serving.contextLength or serving.maxConcurrency, "
            f"or take more or larger GPUs. {lines}"
        )
    if broken_gpu(ended.message):
        return Reason.GPU_FAULT, (
            f"a GPU of node {pod.node} or its driver does not work, or is too old for the image. "
            f"Look at nvidia-smi on the node. {lines}"
        )
    if ended.reason in _NEVER_STARTED:
        return Reason.CONTAINER_START_FAILED, lines or f"container {container.name} could not be started"
    if not container.initial and _hung(pod, ended, known):
        return Reason.UNRESPONSIVE, (
            "the server did not answer its health check any more and was restarted. If it was only busy, raise "
            "health.timeout or health.failureThreshold"
        )
    words = f": {lines}" if lines else " and left no message"
    return Reason.CRASH_LOOP, f"container {container.name} ended with exit code {ended.exit_code}{words}"


def _unresponsive(pod: Pod, container: Container) -> Failure | None:
    """A server that runs and has answered before, but does not now."""
    if container.initial or pod.unready_since is None or container.running_since is None:
        return None
    if pod.unready_since <= container.running_since or container.name != names.SERVER_CONTAINER:
        return None
    message = (
        "the server runs but does not answer its health check. It is restarted after health.failureThreshold such "
        "checks in a row"
    )
    return Failure(Reason.UNRESPONSIVE, message, at=pod.unready_since)


def _hung(pod: Pod, ended: Termination, known: Known | None) -> bool:
    """Whether the liveness probe has ended it: it was out of the Service for a while before it was told to end.

    The Pod says so until the server that was started in its place is ready or not ready. Then what was known counts.
    """
    if ended.exit_code not in _STOPPED_BY_KUBELET or ended.started_at is None or ended.finished_at is None:
        return False
    if known is not None and known.reason == Reason.UNRESPONSIVE and ended.started_at < known.at <= ended.finished_at:
        return True
    return pod.unready_since is not None and ended.started_at < pod.unready_since < ended.finished_at


def _spent(pod: Pod, container: Container, ended: Termination, policy: Policy, now: datetime, earlier: int) -> bool:
    """Whether the budget of failures in a row is spent; `earlier` Pods have taken their part of it.

    The kubelet counts them over the whole life of the Pod. A Pod that had a restart a month is in no loop when it
    has one more; it is when the kubelet, too, holds the container back.
    """
    if container.restarts == 0 or container.restarts + earlier < policy.crash_budget:
        return False
    ran = ended.ran_seconds
    if ran is not None and ran >= policy.crash_run:
        return False
    age = (now - pod.created_at).total_seconds() if pod.created_at else 0.0
    return age < container.restarts * policy.crash_run or container.waiting_reason == "CrashLoopBackOff"


def _never_answered(pod: Pod, ended: Termination, startup_timeout: float) -> bool:
    """Whether the kubelet has ended the server because it did not start in time.

    The probe fails for the last time a little before the time is over. A server that was ready and hung later is
    ended in the same way: its Pod became unready after the server started.
    """
    ran = ended.ran_seconds
    if ran is None or ended.started_at is None or ended.exit_code not in _STOPPED_BY_KUBELET:
        return False
    was_ready = pod.unready_since is not None and pod.unready_since > ended.started_at
    return not was_ready and ran >= startup_timeout - min(5.0, startup_timeout / 4)


def _startup_timeout(budget: float, at: datetime | None, *, final: bool, exit_code: int | None = None) -> Failure:
    return Failure(
        Reason.STARTUP_TIMEOUT,
        f"the server ran for {budget:.0f} s without a healthy answer. Raise health.startupTimeout, or read its log",
        exit_code,
        at,
        final=final,
    )
