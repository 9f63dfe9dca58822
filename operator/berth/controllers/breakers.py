"""Circuit breakers: who does not answer is asked ever more rarely, and as usual once it has answered."""

from collections.abc import Hashable, Set
from dataclasses import dataclass


@dataclass(slots=True)
class _Silence:
    failures: int
    ask_again: float


class Breakers:
    """One for each endpoint that has not answered of late. Times are seconds of a clock that nobody sets."""

    def __init__(self, first: float, longest: float) -> None:
        """`first` is the pause after the first failure; it doubles with each further one up to `longest`."""
        self._first, self._longest = first, longest
        self._silent: dict[Hashable, _Silence] = {}

    def __len__(self) -> int:
        return len(self._silent)

    def suspects(self, endpoint: Hashable) -> bool:
        """Whether it did not answer the last time."""
        return endpoint in self._silent

    def allows(self, endpoint: Hashable, now: float) -> bool:
        """Whether it is to be asked now."""
        silence = self._silent.get(endpoint)
        return silence is None or now >= silence.ask_again

    def answered(self, endpoint: Hashable) -> None:
        """It answered."""
        self._silent.pop(endpoint, None)

    def failed(self, endpoint: Hashable, now: float) -> float:
        """It did not answer; the pause that follows."""
        failures = self._silent[endpoint].failures + 1 if endpoint in self._silent else 1
        pause = min(self._longest, self._first * 2.0 ** min(failures - 1, 30))
        self._silent[endpoint] = _Silence(failures, now + pause)
        return pause

    def keep(self, endpoints: Set[Hashable]) -> None:
        """Forget all others: they are gone."""
        for gone in self._silent.keys() - endpoints:
            del self._silent[gone]
