"""The page that explains every reason of a status: what it means, and the way out."""

from collections.abc import Mapping

from berth.planning import download_reasons, reasons
from berth.planning.reasons import Explanation

_SECTIONS: tuple[tuple[str, str, Mapping[str, Explanation]], ...] = (
    (
        "Models and ModelCaches",
        "Reasons of the conditions, of `status.lastFailure` and of artifacts in `ModelCache.status`.",
        reasons.EXPLANATIONS,
    ),
    (
        "Downloads",
        "Why weights do not arrive. What passes by itself is tried again; the rest waits for a change.",
        download_reasons.EXPLANATIONS,
    ),
)


def reasons_page() -> str:
    """The page in Markdown: a section for each kind of reason, a line for each reason."""
    lines = ["# Reasons", "", "What a status says in one word, and what to do about it.", ""]
    for title, introduction, explanations in _SECTIONS:
        lines += [f"## {title}", "", introduction, "", "| reason | what it means | what to do |", "|---|---|---|"]
        for reason, explanation in explanations.items():
            lines.append(f"| `{reason}` | {_cell(explanation.meaning)} | {_cell(explanation.remedy)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
