"""Downloads of a Pod's own: an init container brings the weights before the server starts."""

from collections.abc import Mapping, Sequence
from typing import Any

from berth.planning.cache_world import read_message
from berth.planning.download_reasons import PASSING, DownloadReason
from berth.planning.pods import Pod
from berth.planning.progress_words import progress_words
from berth.planning.reasons import Reason

Progress = Mapping[str, Mapping[str, Any]]
"""By name of a Pod: what its download says of itself."""

SHOWN = ("revision", "bytesDone", "percent", "bytesPerSecond", "etaSeconds", "filesTotal", "filesDone", "verified")
"""What status.provisioning has in common with what a download says of itself."""


def shown_download(pods: Sequence[Pod], progress: Progress, uri: str, before: Mapping[str, Any]) -> dict[str, Any]:
    """status.provisioning: of the download that is furthest behind, or of the last one that ended.

    `before` is what is shown now; it stays when nobody says anything.
    """
    shown: dict[str, Any] = {"uri": uri}
    told = [progress[pod.name] for pod in pods if pod.name in progress and _downloads(pod)]
    if told:
        slowest = min(told, key=lambda one: one.get("percent") or 0)
        numbers = {key: slowest[key] for key in (*SHOWN, "bytesTotal", "attempt", "lastError") if slowest.get(key)}
        shown |= {**numbers, "percent": slowest.get("percent"), "progress": f"{slowest.get('percent') or 0}%"}
        return {key: value for key, value in shown.items() if value is not None}
    ends = [message for pod in pods if not pod.deleting and (message := _end(pod)) is not None]
    if ends:
        return {**shown, **_of_end(ends[-1])}
    same = before.get("uri") == uri and not before.get("cache")
    return {key: value for key, value in before.items() if key != "progress"} if same else shown


def _of_end(message: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {key: message.get(key) for key in ("revision", "verified", "bytesTotal", "filesTotal", "attempt")}
    if message.get("result") == "Succeeded":
        numbers |= {"percent": 100, "bytesDone": message.get("bytesTotal"), "filesDone": message.get("filesTotal")}
    else:
        numbers["lastError"] = f"{message.get('reason')}: {message.get('message')}"
    return {key: value for key, value in numbers.items() if value is not None}


def downloading(pods: Sequence[Pod], progress: Progress) -> tuple[Reason, str] | None:
    """Reason and sentence while the Pods' own downloads go on and no server runs yet."""
    busy = [pod for pod in pods if _downloads(pod)]
    if not busy:
        return None
    told = next((progress[pod.name] for pod in busy if pod.name in progress), {})
    words = progress_words(told) if told.get("bytesTotal") is not None else "the download is starting"
    return Reason.DOWNLOADING, f"{words}. Its Pod holds its GPUs meanwhile; a ModelCache would spare that"


def own_failure(pod: Pod) -> tuple[Reason | DownloadReason, str, bool] | None:
    """Why the Pod's own download ended: reason, sentence and whether a person is needed."""
    message = _end(pod)
    if message is None or message.get("result") != "Failed":
        return None
    reason = message.get("reason", DownloadReason.INTERNAL_ERROR.value)
    words = message.get("message") or "the download ended without a message"
    if reason == DownloadReason.LIMIT_EXCEEDED:
        advice = "a Pod's own volume holds no more: create a ModelCache named default, or name one in source.cache"
        return Reason.CACHE_REQUIRED, f"{words}. That is what {advice}", True
    return DownloadReason(reason), words, reason not in PASSING


def _downloads(pod: Pod) -> bool:
    """Whether its own download runs."""
    container = pod.provisioner
    return not pod.deleting and container is not None and container.initial and container.running_since is not None


def _end(pod: Pod) -> Mapping[str, Any] | None:
    """The last words of its own download."""
    container = pod.provisioner
    if container is None or not container.initial:
        return None
    ended = container.terminated or container.last_terminated
    return read_message(ended.message) if ended else None
