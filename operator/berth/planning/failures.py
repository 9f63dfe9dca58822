"""What is wrong with a Pod, from what the kubelet and the scheduler say, and whether waiting can mend it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from berth.planning.policy import Policy
from berth.planning.redaction import redact
from berth.planning.world import Container, Pod, Termination

_IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable", "SignatureValidationFailed"}
)
_CUDA_OUT_OF_MEMORY = re.compile(r"(?i)cuda[^\n]{0,80}out of memory|torch\.OutOfMemoryError|cudaMalloc failed")
_MISSING_SECRET = re.compile(r'secret "([^"]+)" not found|couldn\'t find key (\S+) in Secret \S*?/?([^/\s]+)$', re.IGNORECASE)
_LAST_LINES = 5
_LONGEST_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """Something wrong with a Pod."""

    reason: str
    message: str
    exit_code: int | None = None
    at: datetime | None = None
    final: bool = False
    """Whether a person is needed: the patience or the budget is spent."""
    look_again: float | None = None
    """Seconds until the patience is spent, when time alone decides."""


def diagnose(pod: Pod, startup_timeout: float, policy: Policy, now: datetime) -> Failure | None:
    """What is wrong with the Pod at this moment; None when nothing is known to be.

    `startup_timeout` is in seconds. A Pod that the scheduler cannot place is no failure: see `unschedulable`.
    """
    if pod.phase == "Failed" and pod.reason:
        return Failure(pod.reason, redact(pod.message or f"the Pod was ended: {pod.reason}"), at=pod.created_at)
    for container in pod.containers:
        failure = _waiting(pod, container, policy, now) or _ended(container, startup_timeout, policy, now)
        if failure is not None:
            return failure
    return None


def worst(failures: Iterable[Failure]) -> Failure | None:
    """The failure to show of several: a final one first, then the latest."""
    return max(
        failures,
        key=lambda f: (f.final, f.at.timestamp() if f.at else 0.0),
        default=None,
    )


def unschedulable(pods: Iterable[Pod]) -> str:
    """The scheduler's own words about the first Pod it cannot place; empty when it has none."""
    return next((p.unschedulable_message for p in pods if p.unschedulable_message and not p.scheduled), "")


def _waiting(pod: Pod, container: Container, policy: Policy, now: datetime) -> Failure | None:
    reason, message = container.waiting_reason, redact(container.waiting_message)
    age = (now - pod.created_at).total_seconds() if pod.created_at else 0.0
    if reason == "InvalidImageName":
        return Failure("ImagePullFailed", f"{message}. Correct serving.image", at=pod.created_at, final=True)
    if reason in _IMAGE_REASONS:
        left = policy.image_pull_patience - age
        return Failure(
            "ImagePullFailed",
            f"{message or 'the image cannot be pulled'}. Check serving.image and, for a private registry, the pull secret",
            at=pod.created_at,
            final=left <= 0,
            look_again=max(left, 0.0),
        )
    if reason == "CreateContainerConfigError":
        left = policy.config_patience - age
        secret = _MISSING_SECRET.search(message)
        return Failure(
            "SecretNotFound" if secret else "ConfigurationError",
            f"{message}. Create it in namespace {pod.namespace}, or correct the reference" if secret else message,
            at=pod.created_at,
            final=left <= 0,
            look_again=max(left, 0.0),
        )
    if reason in ("CreateContainerError", "RunContainerError"):
        return Failure("ContainerStartFailed", message, at=pod.created_at, final=container.restarts >= policy.crash_budget)
    return None


def _ended(container: Container, startup_timeout: float, policy: Policy, now: datetime) -> Failure | None:
    if container.ready and not container.initial:
        return None
    if container.running_since is not None and not container.started and not container.initial:
        running = (now - container.running_since).total_seconds()
        if running > startup_timeout:
            return _startup_timeout(startup_timeout, container.running_since, final=False)
    ended = container.terminated or container.last_terminated
    if ended is None or (container.initial and ended.exit_code == 0):
        return None
    if container.running_since is not None and container.started and container.terminated is None:
        return None  # it has recovered from that and answers its probes
    ran = ended.ran_seconds
    spent = container.restarts >= policy.crash_budget and (ran is None or ran < policy.crash_run)
    if ended.reason == "OOMKilled":
        return Failure(
            "OutOfMemory",
            f"container {container.name} needed more host memory than its limit. Raise limits.memory or lower serving.contextLength",
            ended.exit_code,
            ended.finished_at,
            final=spent,
        )
    if _CUDA_OUT_OF_MEMORY.search(ended.message):
        return Failure(
            "OutOfMemory",
            "the GPU has too little memory for this model. Lower serving.contextLength or serving.maxConcurrency, "
            f"or take more or larger GPUs. {last_lines(ended)}",
            ended.exit_code,
            ended.finished_at,
            final=spent,
        )
    if ran is not None and ended.exit_code in (137, 143) and ran >= startup_timeout and not container.initial:
        return _startup_timeout(startup_timeout, ended.finished_at, final=True, exit_code=ended.exit_code)
    lines = last_lines(ended)
    return Failure(
        "CrashLoop",
        f"container {container.name} ended with exit code {ended.exit_code}" + (f": {lines}" if lines else " and left no message"),
        ended.exit_code,
        ended.finished_at,
        final=spent,
    )


def _startup_timeout(budget: float, at: datetime | None, *, final: bool, exit_code: int | None = None) -> Failure:
    return Failure(
        "StartupTimeout",
        f"the server ran for {budget:.0f} s without a healthy answer. Raise health.startupTimeout, or read its log",
        exit_code,
        at,
        final=final,
    )


def last_lines(ended: Termination) -> str:
    """The last lines that the container left as its termination message, redacted and of bounded length."""
    lines = [line.strip() for line in redact(ended.message).splitlines() if line.strip()]
    return " | ".join(lines[-_LAST_LINES:])[-_LONGEST_MESSAGE:]
