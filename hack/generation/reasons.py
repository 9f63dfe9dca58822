"""The page that explains every reason of a status: what it means, how to look, and the way out.

Meaning and way out stand in the code beside the reasons; how to look, in looking.yaml.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from berth.planning import download_reasons, reasons
from berth.planning.capacity import reasons as capacity_reasons
from berth.planning.reasons import Explanation

LOOKING = Path(__file__).with_name("looking.yaml")


class Section(NamedTuple):
    """Reasons of one kind."""

    key: str
    """In looking.yaml."""
    title: str
    introduction: str
    explanations: Mapping[str, Explanation]


SECTIONS = (
    Section(
        "models",
        "Models and ModelCaches",
        "Reasons of the conditions, of `status.lastFailure` and of artifacts in `ModelCache.status`.",
        reasons.EXPLANATIONS,
    ),
    Section(
        "capacity",
        "The queue for GPUs",
        "Reasons of `status.queue` and of the condition Admitted: why a Model may not ask for its GPUs yet.",
        capacity_reasons.EXPLANATIONS,
    ),
    Section(
        "downloads",
        "Downloads",
        "Why weights do not arrive. What passes by itself is tried again; the rest waits for a change.",
        download_reasons.EXPLANATIONS,
    ),
)
_INTRODUCTION = """\
What a status says in one word: what it means, how to look, and the way out. The message beside the reason has the
numbers and names of your case, so read that first:

```console
$ kubectl get model NAME -o wide
$ kubectl get model NAME -o jsonpath='{.status.conditions[?(@.type=="Ready")].message}{"\\n"}'
```

`NAME` is the Model, `CACHE` the ModelCache. [By symptom](../troubleshooting.md); reasons of a
[GPUNode](../gpu-nodes.md#health)."""


def reasons_page() -> str:
    """The page in Markdown: a section for each kind of reason, an entry with an anchor for each reason."""
    looking: Mapping[str, Mapping[str, str]] = yaml.safe_load(LOOKING.read_text(encoding="utf-8"))
    parts = ["# Reasons", _INTRODUCTION]
    parts += [
        f"- {section.title}: " + ", ".join(_link(section, one) for one in section.explanations) for section in SECTIONS
    ]
    for section in SECTIONS:
        parts += [f"## {section.title}", section.introduction]
        for reason, explanation in section.explanations.items():
            parts.append(f"### {reason}")
            parts.append(explanation.meaning)
            if commands := looking[section.key].get(reason):
                shown = "\n".join(f"$ {command}" for command in commands.strip().splitlines())
                parts.append(f"```console\n{shown}\n```")
            if explanation.remedy:
                parts.append(f"**Way out:** {explanation.remedy}")
    return "\n\n".join(parts) + "\n"


def anchor(section: Section, reason: str) -> str:
    """The anchor of an entry. A word of an earlier section has its number behind it, as GitHub counts."""
    before = SECTIONS[: SECTIONS.index(section)]
    times = sum(reason in one.explanations for one in before)
    return reason.lower() + (f"-{times}" if times else "")


def _link(section: Section, reason: str) -> str:
    return f"[{reason}](#{anchor(section, reason)})"
