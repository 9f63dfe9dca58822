"""One artifact of a ModelCache: from what is recorded and what its Jobs say to what is recorded next.

An entry of the status is the memory of a ModelCache. The end of a Job is written there first, together with the uid
of the Job; only then the Job is deleted. Whatever is cut off in between is done again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from berth.api.model_cache_status import StoredState
from berth.planning import names
from berth.planning.cache_demand import Wanted
from berth.planning.cache_space import used
from berth.planning.cache_world import JobEnd, job_end, pods_of, read_message
from berth.planning.download_reasons import DownloadReason
from berth.planning.failures import Known, diagnose, shown, unschedulable
from berth.planning.plan import DownloadEnd, Note
from berth.planning.pods import Pod
from berth.planning.policy import Policy
from berth.planning.progress_words import number, progress_words, size
from berth.planning.reasons import Reason
from berth.planning.times import format_time, parse_time
from berth.planning.world import Child

Entry = dict[str, Any]

_PROGRESS = ("bytesDone", "percent", "bytesPerSecond", "etaSeconds", "filesDone")
_WORDLESS = "the download ended without a message"
_ATTEMPT = ("reason", "message", "attempt", "failedAt", "retryAt", "inputs")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one artifact besides its entry."""

    download: Child | None = None
    removal: Child | None = None
    pods: Sequence[Pod] = ()
    """Pods of the cache."""
    progress: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name of a Pod."""


@dataclass(slots=True)
class Step:
    """What becomes of one artifact."""

    entry: Entry | None
    """None when there is nothing left to say."""
    ended_jobs: list[Child] = field(default_factory=list)
    """Jobs whose end is recorded, or that nobody wants any more."""
    notes: list[Note] = field(default_factory=list)
    downloads: list[DownloadEnd] = field(default_factory=list)
    look_again: float | None = None
    running: bool = False
    """Whether a download is under way, wanted or not."""


def advance(entry: Entry, wanted: Wanted | None, seen: Seen, inputs: str, policy: Policy, now: datetime) -> Step:
    """The next entry. `inputs` is the hash of what a download that began now would be made from."""
    step = Step(dict(entry))
    if seen.download is not None:
        _look_at_download(step, wanted, seen, seen.download, inputs, policy, now)
    elif entry["state"] == StoredState.DOWNLOADING:
        _set(step, StoredState.PENDING, bytesDone=entry.get("bytesDone"))  # somebody deleted the Job
    if seen.removal is not None and step.entry is not None:
        _look_at_removal(step, wanted, seen, seen.removal, policy, now)
    elif entry["state"] == StoredState.REMOVING and seen.download is None and wanted is not None and wanted.kept:
        kept = {key: value for key, value in entry.items() if key not in _ATTEMPT}
        step.entry = kept | {
            "state": StoredState.PENDING.value,
            "bytesDone": used([entry]),
        }  # a download tells the rest
    if step.entry is not None and _nothing_to_say(step.entry, wanted, seen):
        step.entry = None
    return step


def _nothing_to_say(entry: Entry, wanted: Wanted | None, seen: Seen) -> bool:
    """Whether an artifact that nobody wants has left nothing on the volume either."""
    busy = seen.download is not None or seen.removal is not None
    waiting = entry["state"] in (StoredState.PENDING, StoredState.FAILED, StoredState.ABSENT)
    return wanted is None and not busy and waiting and not entry.get("bytesDone")


def _set(step: Step, state: StoredState, **fields: Any) -> None:
    assert step.entry is not None
    kept = {key: value for key, value in step.entry.items() if key not in (*_PROGRESS, "reason", "message")}
    step.entry = {**kept, "state": state.value, **{key: value for key, value in fields.items() if value is not None}}


# ---- downloads --------------------------------------------------------------------------------------------------


def _look_at_download(
    step: Step, wanted: Wanted | None, seen: Seen, job: Child, inputs: str, policy: Policy, now: datetime
) -> None:
    assert step.entry is not None
    end = job_end(job, seen.pods)
    if end is not None and step.entry.get("job") == job.uid:
        step.ended_jobs.append(job)
    elif end is not None:
        step.look_again = 0.0  # the Job goes once its end is recorded
        _record_download(step, job, end, inputs, policy, now)
    elif job.deleting:
        step.running = True
    elif wanted is None or not wanted.active:
        step.ended_jobs.append(job)
        step.running = True  # until it is gone
        done = _latest_progress(job, seen).get("bytesDone") or step.entry.get("bytesDone")
        _set(step, StoredState.PENDING, reason=Reason.NOT_WANTED, message="nobody asks for it now", bytesDone=done)
    elif step.entry.get("inputs", inputs) != inputs and not _has_begun(job, seen):
        step.ended_jobs.append(job)  # nothing is lost, and what is wrong with it may have been mended
        step.running = True
    else:
        _show_progress(step, seen, job, policy, now)


def _has_begun(job: Child, seen: Seen) -> bool:
    """Whether the program of the Job has run."""
    containers = [pod.provisioner for pod in pods_of(job, seen.pods)]
    return any(one is not None and (one.running_since or one.terminated or one.last_terminated) for one in containers)


def _record_download(step: Step, job: Child, end: JobEnd, inputs: str, policy: Policy, now: datetime) -> None:
    assert step.entry is not None
    message = end.message or {}
    fetched = DownloadEnd(
        "",
        number(message, "bytesFetched"),
        message.get("seconds", 0.0),
        message.get("retries", {}),
    )
    what = step.entry.get("uri") or step.entry["name"]
    if end.succeeded and message.get("result") == "Succeeded":
        for key in _ATTEMPT:
            step.entry.pop(key, None)
        _set(
            step,
            StoredState.PRESENT,
            revision=message.get("revision"),
            bytes=message.get("bytesTotal"),
            filesTotal=message.get("filesTotal"),
            verified=bool(message.get("verified")),
            licence=message.get("licence"),
            path=step.entry["name"],
            file=message.get("file"),
            figures=message.get("figures"),
            job=job.uid,
        )
        step.downloads.append(fetched)
        step.notes.append(Note("Normal", "Downloaded", f"{what} is there: {size(number(message, 'bytesTotal'))}"))
        return
    reason, words, passing = _why(end)
    attempt = int(step.entry.get("attempt") or 0) + 1
    wait = retry_wait(attempt, passing, policy)
    done = step.entry.get("bytes") if reason == Reason.RESULT_LOST else step.entry.get("bytesDone")
    _set(
        step,
        StoredState.PENDING if passing else StoredState.FAILED,
        reason=reason,
        message=words,
        bytes=message.get("bytesTotal") or step.entry.get("bytes"),
        bytesDone=message.get("bytesPresent", done),
        attempt=attempt,
        failedAt=format_time(now),
        retryAt=format_time(now + timedelta(seconds=wait)),
        inputs=step.entry.get("inputs", inputs),
        job=job.uid,
    )
    step.downloads.append(DownloadEnd(reason, fetched.bytes_fetched, fetched.seconds, fetched.retries))
    if not passing or attempt == 1:
        step.notes.append(Note("Warning", reason, f"{what}: {words}"))


def _why(end: JobEnd) -> tuple[str, str, bool]:
    """Reason, sentence, and whether it may pass by itself."""
    message = end.message
    if message is not None and message["result"] == "Failed":
        reason = message.get("reason", DownloadReason.INTERNAL_ERROR.value)
        return reason, shown(message.get("message", "")) or _WORDLESS, message.get("passing", False)
    if end.succeeded:
        return Reason.RESULT_LOST, "the download ended and its result was lost; it runs again and finds it", True
    words = shown(end.words) or _WORDLESS
    return Reason.PROVISIONER_FAILED, f"{words}. It is tried again", True


def retry_wait(attempt: int, passing: bool, policy: Policy) -> float:
    """Seconds until the next attempt after so many failures in a row."""
    if passing:
        return min(policy.retry_first * 2.0 ** min(attempt - 1, 20), policy.retry_longest)
    return min(policy.retry_longest * 2.0 ** min(attempt - 1, 20), policy.retry_final_longest)


def _show_progress(step: Step, seen: Seen, job: Child, policy: Policy, now: datetime) -> None:
    assert step.entry is not None
    step.running = True
    told = _latest_progress(job, seen)
    standing = _of_pods(step.entry, job, seen, told, policy, now)
    step.look_again = standing.look_again
    failed_before = step.entry["state"] == StoredState.FAILED and told.get("bytesTotal") is None
    if failed_before:
        return  # a new attempt that has not come further: what is wrong stays in sight
    state = StoredState.FAILED if standing.final else StoredState.DOWNLOADING
    before = step.entry
    _set(step, state, reason=standing.reason, message=standing.message)
    assert step.entry is not None
    if standing.since is not None:
        step.entry["failedAt"] = format_time(standing.since)
    if told:
        numbers = {"bytes": told.get("bytesTotal"), "revision": told.get("revision")}
        numbers |= {"filesTotal": told.get("filesTotal")}
        numbers |= {key: told.get(key) for key in _PROGRESS}
    else:  # between two Pods, or not reachable: what was known last still holds
        numbers = {key: before.get(key) for key in ("bytesDone", "percent", "filesDone")}
    step.entry |= {key: value for key, value in numbers.items() if value is not None}


def _latest_progress(job: Child, seen: Seen) -> Mapping[str, Any]:
    for pod in reversed(pods_of(job, seen.pods)):
        if pod.name in seen.progress:
            return seen.progress[pod.name]
    return {}


@dataclass(frozen=True, slots=True)
class _Standing:
    """How the Pods of a download stand."""

    reason: str
    message: str
    final: bool = False
    """Whether a person is needed."""
    look_again: float | None = None
    """Seconds until that may change by itself."""
    since: datetime | None = None
    """Since when something is wrong."""


def _of_pods(entry: Entry, job: Child, seen: Seen, told: Mapping[str, Any], policy: Policy, now: datetime) -> _Standing:
    pods = pods_of(job, seen.pods)
    if told.get("bytesTotal") is not None:
        return _Standing(Reason.DOWNLOADING, progress_words(told))
    pod = pods[-1] if pods else None
    if pod is None:
        return _Standing(Reason.DOWNLOADING, "the Pod of the download is being created")
    ended = pod.provisioner.terminated if pod.provisioner else None
    message = read_message(ended.message) if ended else None
    if message is not None and message["result"] == "Failed":
        words = shown(message.get("message", "")) or _WORDLESS
        return _Standing(message.get("reason", DownloadReason.INTERNAL_ERROR.value), f"{words}. It is tried again")
    if ended is not None and ended.exit_code == 0:
        return _Standing(Reason.DOWNLOADING, "everything is there, and is about to be recorded")
    if waits := unschedulable([pod]):
        return _Standing(Reason.UNSCHEDULABLE, waits)
    failure = diagnose(pod, float("inf"), policy, now, _known(entry))
    if failure is not None:
        return _Standing(failure.reason, failure.message, failure.final, failure.look_again, failure.at)
    if told.get("lastError"):
        return _Standing(Reason.DOWNLOADING, f"the source is asked again: {shown(told['lastError'])}")
    return _Standing(Reason.DOWNLOADING, "the download is starting")


def _known(entry: Entry) -> Known | None:
    """What is known to be wrong already, and since when: there patience begins."""
    since = _moment(entry.get("failedAt"))
    return Known(str(entry.get("reason")), since) if since is not None else None


# ---- removals ---------------------------------------------------------------------------------------------------


def _look_at_removal(step: Step, wanted: Wanted | None, seen: Seen, job: Child, policy: Policy, now: datetime) -> None:
    assert step.entry is not None
    end = job_end(job, seen.pods)
    if end is None:
        done = step.entry.get("bytesDone")
        _set(step, StoredState.REMOVING, reason=Reason.REMOVING, message="its files are being removed", bytesDone=done)
    elif step.entry.get("job") == job.uid:
        step.ended_jobs.append(job)
    elif end.succeeded:
        step.look_again = 0.0
        for key in (*_ATTEMPT, "bytes", "revision", "verified", "path", "file", "figures", "filesTotal"):
            step.entry.pop(key, None)
        gone = wanted is None or wanted.absent
        _set(step, StoredState.ABSENT if gone else StoredState.PENDING, job=job.uid)
        step.notes.append(Note("Normal", "Removed", f"{step.entry.get('uri') or step.entry['name']} was removed"))
    else:
        step.look_again = 0.0
        reason, words, _ = _why(end)
        attempt = int(step.entry.get("attempt") or 0) + 1
        retry = format_time(now + timedelta(seconds=retry_wait(attempt, True, policy)))
        _set(step, StoredState.REMOVING, reason=reason, message=words, attempt=attempt, retryAt=retry, job=job.uid)


def due(entry: Mapping[str, Any], now: datetime) -> float:
    """Seconds until it may be tried again; 0 when it may now."""
    moment = _moment(entry.get("retryAt"))
    return max(0.0, (moment - now).total_seconds()) if moment else 0.0


def _moment(text: str | None) -> datetime | None:
    """A time that is recorded; None when there is none that anybody can read."""
    try:
        moment = parse_time(text)
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def label_of(job: Child) -> str:
    """The artifact that a Job is about; empty when it is about the whole volume."""
    value: str = (job.manifest()["metadata"].get("labels") or {}).get(names.ARTIFACT_LABEL, "")
    return value
