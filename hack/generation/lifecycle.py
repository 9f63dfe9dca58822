"""The page about the life of a Model: phases, their conditions and reasons, and the transitions between them.

The table comes from `conditions.assess`, asked about a set of facts that covers what it looks at, and the diagram from
`generation.transitions`. Nothing of either is written by hand.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

from berth.api.model_status import Phase
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.conditions import Facts, Verdict, assess, stamp
from berth.planning.download_reasons import DownloadReason
from berth.planning.failures import Failure
from berth.planning.reasons import BREAKER, Reason
from generation.queue_transitions import queue_transitions
from generation.transitions import Transition, transitions

_OF_A_DOWNLOAD = "a [reason of a download](reference/reasons.md#downloads)"
_TOLD = ("Ready", "Reconciling", "Stalled", "Available")

_STOPS = (None, Reason.STOPPED_BY_USER, Reason.SCALED_TO_ZERO, Reason.IDLE, Reason.OPERATOR_UNINSTALLING)
_WHOLE_PODS = (
    Reason.EVICTED,
    Reason.NODE_LOST,
    Reason.GPU_FAULT,
    Reason.NODE_SHUTDOWN,
    Reason.PREEMPTED,
    Reason.NODE_REJECTED,
    Reason.POD_FAILED,
)
_REFUSALS = (Reason.QUOTA_EXCEEDED, Reason.FORBIDDEN, Reason.PODS_REFUSED)
_AWAITED = (Reason.WAITING_FOR_DOWNLOAD, Reason.DOWNLOADING, Reason.CACHE_NOT_FOUND, DownloadReason.TOKEN_MISSING)
_UNFIT = (CapacityReason.NO_NODE_FITS, CapacityReason.SHARING_UNAVAILABLE)
_MISSED = (Reason.CACHE_FAILED, Reason.CACHE_REQUIRED, DownloadReason.TOKEN_MISSING)

_SHAPES: dict[str, tuple[Any, ...]] = {
    "generation": (1,),
    "wanted": (0, 1, 2),
    "stop_reason": _STOPS,
    "current_ready": (0, 1),
    "ready": (0, 1),
    "current": (0, 1, 2),
    "outdated": (0, 1),
    "leaving": (0, 1),
    "started": (False, True),
    "scheduled": (False, True),
    "hopeful": (0, 1),
    "was": (Phase.PENDING, Phase.READY),
    "was_generation": (1,),
}
"""How Pods may stand, and what was there before: all combinations that do not contradict one another."""
_TROUBLES: dict[str, tuple[Any, ...]] = {
    "unschedulable": ("no node has room",),
    "failure": (
        *(Failure(reason, "m", final=final) for reason in sorted(BREAKER) for final in (False, True)),
        *(Failure(reason, "m") for reason in _WHOLE_PODS),
        Failure(DownloadReason.TOKEN_MISSING, "m", final=True),
    ),
    "invalid": ((Reason.INVALID_SPEC, "m"), (Reason.NAME_CONFLICT, "m")),
    "refused": tuple((reason, "m") for reason in _REFUSALS),
    "tripped": tuple(
        (reason, "m") for reason in (*sorted(BREAKER), Reason.CACHE_REQUIRED, DownloadReason.TOKEN_MISSING)
    ),
    "weights_awaited": tuple((reason, "m") for reason in _AWAITED),
    "weights_failed": tuple((reason, "m") for reason in _MISSED),
    "queued": tuple((str(reason), "m") for reason in CapacityReason),
    "admitted": (1,),
    "unfit": tuple((str(reason), "m") for reason in _UNFIT),
}
"""What may be wrong, one thing at a time; nothing is, otherwise."""
_NOTHING = {name: "" if name == "unschedulable" else None for name in _TROUBLES}


@cache
def lifecycle_page() -> str:
    """The page in Markdown."""
    verdicts = _verdicts()
    lines = ["# The life of a Model", "", _INTRODUCTION, "", "## Phases", "", _LEGEND, ""]
    lines += [f"| phase | {' | '.join(_TOLD)} | reasons |", "|---|---|---|---|---|---|"]
    for phase in Phase:
        lines.append(_row(phase, verdicts[phase]))
    lines += ["", "## Transitions", "", _SEARCH, "", *_diagram(), "", "| from | to | reasons |", "|---|---|---|"]
    lines += _edges()
    return "\n".join(lines) + "\n"


_INTRODUCTION = """\
`status.phase` is computed from what is seen at this moment; no phase is a step in a program, and none has to follow
another. [reasons.md](reference/reasons.md) explains the reasons. `status.timeline` says when each step of the latest
start was reached, `status.phaseSince` since when the phase is as it is."""
_LEGEND = """\
T is True, F is False, - is a condition that is left out, T/F depends on whether a server answers. The reason is that of
`Ready`."""
_SEARCH = """\
Found by letting the operator's decisions meet, at every moment, what people, nodes and mishaps may do: stops, starts,
changes, mistakes in the spec, scaling, crashes, lost Pods, downloads that fail; and by letting some Models share a GPU.
A transition that passes over a phase happens when several things have changed between two looks. The reasons are those
of the phase that is entered, out of the mishaps that were tried."""


def _verdicts() -> dict[Phase, set[Verdict]]:
    """What `assess` says of all facts, without the words."""
    found: dict[Phase, set[Verdict]] = defaultdict(set)
    for facts in _facts():
        verdict = replace(assess(facts), message="")
        found[verdict.phase].add(verdict)
    return found


def _facts() -> Iterator[Facts]:
    missing = {field.name for field in dataclasses.fields(Facts)} - _SHAPES.keys() - _TROUBLES.keys()
    if missing:
        raise LookupError(f"hack/generation/lifecycle.py does not know what these facts may be: {sorted(missing)}")
    for values in product(*_SHAPES.values()):
        shape = dict(zip(_SHAPES, values, strict=True))
        if not _consistent(shape):
            continue
        plain = Facts(**shape, **_NOTHING)
        yield plain
        for name, troubles in _TROUBLES.items():
            for trouble in troubles:
                yield replace(plain, **{name: trouble})


def _consistent(shape: dict[str, Any]) -> bool:
    """Whether Pods may stand like this: a ready Pod is a Pod with a server, a stopped Model wants no replica."""
    stopped, ready = shape["stop_reason"] is not None, shape["current_ready"]
    return (
        stopped == (shape["wanted"] == 0)
        and ready <= shape["current"]
        and ready <= shape["ready"] <= ready + shape["outdated"]
        and shape["hopeful"] <= shape["current"]
        and shape["started"] <= shape["scheduled"] <= (shape["current"] > 0)
        and (ready == 0 or (shape["started"] and shape["hopeful"] > 0))
    )


def _row(phase: Phase, verdicts: set[Verdict]) -> str:
    if not verdicts:
        return f"| `{phase}` | | | | | not shown by this version |"
    cells = [_cell({_status(verdict, kind) for verdict in verdicts}) for kind in _TOLD]
    return f"| `{phase}` | {' | '.join(cells)} | {_reasons({verdict.reason for verdict in verdicts})} |"


def _status(verdict: Verdict, kind: str) -> str:
    shown = {str(c["type"]): str(c["status"]) for c in stamp(verdict, 1, (), "")}
    return {"True": "T", "False": "F"}.get(shown.get(kind, ""), "-")


def _cell(statuses: set[str]) -> str:
    return "/".join(sorted(statuses, reverse=True))


def _reasons(reasons: set[str]) -> str:
    """In the order in which they are declared. One reason of a download stands for all: they are treated alike."""
    names = dict.fromkeys(str(reason) for reason in (*Reason, *CapacityReason))
    own = [f"`{name}`" for name in names if name in reasons]
    return ", ".join(own if reasons <= names.keys() else [*own, _OF_A_DOWNLOAD])


@cache
def _all_transitions() -> frozenset[Transition]:
    return transitions() | queue_transitions()


def _diagram() -> Iterator[str]:
    pairs = sorted({(found.before, found.after) for found in _all_transitions()}, key=_place)
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    direction LR"
    yield f"    [*] --> {Phase.PENDING}"
    for before, after in pairs:
        yield f"    {before} --> {after}"
    yield "```"


def _edges() -> Iterator[str]:
    reasons: dict[tuple[str, str], set[str]] = defaultdict(set)
    for found in _all_transitions():
        reasons[found.before, found.after].add(found.reason)
    for before, after in sorted(reasons, key=_place):
        yield f"| `{before}` | `{after}` | {_reasons(reasons[before, after])} |"


def _place(pair: tuple[str, str]) -> tuple[int, int]:
    """In the order in which the phases are declared."""
    order = [str(phase) for phase in Phase]
    return order.index(pair[0]), order.index(pair[1])
