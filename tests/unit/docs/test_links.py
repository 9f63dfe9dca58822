"""What the documentation names exists: files, folders and headings."""

import re
from pathlib import Path

import pytest

from unit.docs.pages import ROOT, anchors, links, name_of, pages

PROMISED: set[str] = set()
"""Pages that are being written; links to them are no mistakes. To be emptied when they are there."""
PATHS = re.compile(r"(?<![\w./-])((?:docs|examples|deploy|crds|charts|hack|tests|operator)/[\w./*{}-]*[\w*}/])")


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            if name_of(target) not in PROMISED:
                broken.append(link)
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_path_of_the_checkout_that_is_named_exists(page: Path) -> None:
    without_links = re.sub(r"\[[^\]]*\]\([^)]*\)", "", page.read_text(encoding="utf-8"))
    named = set(PATHS.findall(without_links)) - PROMISED
    missing = [path for path in named if not any(ROOT.glob(_pattern(path))) and not (page.parent / path).exists()]
    assert missing == []


def _pattern(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "*", path).rstrip("/")


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link).resolve() for link in links(index)}
    assert [
        name_of(page) for page in pages() if page.is_relative_to(ROOT / "docs") and page not in {*linked, index}
    ] == []


def test_the_index_names_every_example() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link).resolve() for link in links(index)}
    assert [path.name for path in (ROOT / "examples").glob("*.yaml") if path not in linked] == []
