"""Whether to try again after a failure, and when. Pure: chance and time are arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from berth.provision.errors import ProvisionError, Reason


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a download is."""

    tries: int = 8
    """Failures in a row, without a byte gained, until the last one is final."""
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_asked: float = 900.0
    """The longest Retry-After that is obeyed."""


_TRIES_OF: Mapping[Reason, int] = {
    Reason.SIGNATURE_EXPIRED: 1,
    Reason.UNEXPECTED_CONTENT: 3,
    Reason.CHECKSUM_MISMATCH: 2,
    Reason.SIZE_MISMATCH: 2,
}
"""Tries for what seldom gets better within a run. A wrong digest or length is fetched anew once."""


def wait_before_retry(failure: ProvisionError, failures: int, policy: RetryPolicy, chance: float) -> float | None:
    """Seconds until the next try, after `failures` in a row; None when this failure is final.

    `chance` is between 0 and 1: waits are spread so that many downloads do not come back at the same moment.
    """
    tries = min(policy.tries, _TRIES_OF.get(failure.reason, policy.tries))
    if failures >= tries or not (failure.passing or failure.reason in _TRIES_OF):
        return None
    if failure.reason in (Reason.VOLUME_FAILED, Reason.LOCKED, Reason.INTERRUPTED, Reason.INTERNAL_ERROR):
        return None
    grown = policy.first_wait * 2.0 ** min(failures - 1, 30)
    wait = min(policy.longest_wait, grown) * (0.5 + 0.5 * chance)
    if failure.retry_after is not None:
        asked = min(failure.retry_after, policy.longest_asked)
        return asked + min(policy.first_wait, wait) * chance
    return wait


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the answer asks to wait. A date is compared with the server's own clock, never with ours."""
    asked = headers.get("retry-after", "").strip()
    if not asked:
        return None
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    try:
        until = parsedate_to_datetime(asked)
        return max(0.0, (until - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (ValueError, TypeError):
        return None
