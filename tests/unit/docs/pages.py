"""The Markdown files of the checkout, and what stands in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]
_ELSEWHERE = (".venv", ".git", "node_modules")
_FENCE = re.compile(r"^([ ]*)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str


def pages() -> list[Path]:
    """Every Markdown file."""
    found = (path for path in ROOT.rglob("*.md") if not set(path.relative_to(ROOT).parts) & set(_ELSEWHERE))
    return sorted(found)


def name_of(page: Path) -> str:
    """The path below the checkout."""
    return str(page.relative_to(ROOT))


def blocks() -> Iterator[Block]:
    """Every fenced block of every page."""
    for page in pages():
        for _, language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
            yield Block(name_of(page), language, text)


def links(page: Path) -> list[str]:
    """Targets of the links of a page, code apart."""
    return _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found: dict[str, int] = {}
    out = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = "".join(letter for letter in plain if letter.isalnum() or letter in "-_ ").replace(" ", "-")
        times = found.get(anchor, 0)
        found[anchor] = times + 1
        out.add(f"{anchor}-{times}" if times else anchor)
    return out
