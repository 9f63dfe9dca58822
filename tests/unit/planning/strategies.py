"""Generated facts: everything that can be true of one Model at once."""

from dataclasses import replace

from hypothesis import strategies as st

from berth.api.model_status import Phase
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.conditions import Facts
from berth.planning.failures import Failure
from berth.planning.reasons import BREAKER, Reason
from support.builders import NOW

STOPS = (Reason.STOPPED_BY_USER, Reason.IDLE, Reason.SCALED_TO_ZERO)


def plain_facts() -> Facts:
    """A Model of one replica whose Deployment was made this moment."""
    return Facts(
        generation=1,
        wanted=1,
        stop_reason=None,
        current_ready=0,
        ready=0,
        current=0,
        outdated=0,
        leaving=0,
        started=False,
        scheduled=False,
        unschedulable="",
        failure=None,
        hopeful=0,
        invalid=None,
        refused=None,
        tripped=None,
        was=Phase.PENDING,
        was_generation=-1,
    )


@st.composite
def failures(draw: st.DrawFn) -> Failure:
    """A failure; only some reasons can be final."""
    final = draw(st.booleans())
    reason = draw(st.sampled_from(sorted(BREAKER) if final else sorted(Reason)))
    return Failure(reason, "what is wrong", at=NOW, final=final)


refusals = st.tuples(
    st.sampled_from([Reason.NAME_CONFLICT, Reason.INVALID_SPEC, Reason.QUOTA_EXCEEDED, Reason.FORBIDDEN]),
    st.just("refused"),
)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    """Facts that do not contradict one another: a ready Pod is a Pod, a stopped Model wants no replica."""
    stop = draw(st.none() | st.sampled_from(STOPS))
    current = draw(st.integers(0, 4))
    current_ready = draw(st.integers(0, current))
    outdated = draw(st.integers(0, 3))
    scheduled = draw(st.booleans()) or current_ready > 0
    return replace(
        plain_facts(),
        generation=draw(st.integers(1, 3)),
        wanted=0 if stop else draw(st.integers(1, 4)),
        stop_reason=stop,
        current=current,
        current_ready=current_ready,
        ready=current_ready + draw(st.integers(0, outdated)),
        outdated=outdated,
        leaving=draw(st.integers(0, 3)),
        scheduled=scheduled and current > 0,
        started=draw(st.booleans()) and scheduled and current > 0,
        unschedulable=draw(st.sampled_from(["", "no room"])),
        failure=draw(st.none() | failures()),
        hopeful=draw(st.integers(0, current)),
        invalid=draw(st.none() | refusals),
        refused=draw(st.none() | refusals),
        tripped=draw(st.none() | st.tuples(st.sampled_from(sorted(BREAKER)), st.just("given up"))),
        was=draw(st.sampled_from(sorted(Phase))),
        was_generation=draw(st.integers(-1, 3)),
        **draw(_capacity(0 if stop else 4)),
    )


@st.composite
def _capacity(draw: st.DrawFn, most: int) -> dict[str, object]:
    """What the capacity planner says: nothing, that all may load, that it waits, or that it cannot be."""
    queue = st.tuples(st.sampled_from(sorted(CapacityReason)), st.just("no room"))
    kind = draw(st.sampled_from(["nothing", "admitted", "queued", "unfit"])) if most else "nothing"
    if kind == "nothing":
        return {}
    waits = {kind: draw(queue)} if kind != "admitted" else {}
    return {"admitted": draw(st.integers(0, most)), **waits}
