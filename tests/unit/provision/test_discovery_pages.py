"""Findings travel in messages of 4096 bytes: nothing is lost or told twice, whatever happens between two of them."""

import json
import logging
import os
import signal
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stocked_volume import CONFIG, Volume, gguf_content, safetensors, sharded

from berth.planning.discovered import Discovered, Kind, proposals
from berth.provision.discovery.candidate import Candidate
from berth.provision.discovery.pages import page
from berth.provision.discovery.scanning import scan
from berth.provision.discovery.tree import Tree
from berth.provision.endpoint import ProgressEndpoint


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    handlers, level = logging.root.handlers[:], logging.root.level
    terminated = signal.getsignal(signal.SIGTERM)
    (tmp_path / "volume").mkdir()
    yield Volume(tmp_path / "volume")
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    signal.signal(signal.SIGTERM, terminated)


def _fill(volume: Volume, count: int) -> list[str]:
    """That many GGUF models, all the same file; their names are neither sorted nor alike in length."""
    first = volume.put("m0.gguf", gguf_content())
    names = ["m0.gguf"]
    for number in range(1, count):
        name = f"{number * 7919 % 31}/{'x' * (number % 90)}{number}.gguf"
        (volume.root / name).parent.mkdir(exist_ok=True)
        os.link(first, volume.root / name)
        names.append(name)
    return sorted(names)


def test_five_hundred_findings_over_many_pages(volume: Volume) -> None:
    names = _fill(volume, 500)
    pages = volume.pages()
    found = [finding.path for one in pages for finding in one.findings]
    assert found == names
    assert len(pages) > 10
    assert all(len(one.raw) <= 4096 for one in pages)
    assert all(len(one.raw) > 3500 for one in pages[:-1])
    assert [one.message["after"] is None for one in pages] == [False] * (len(pages) - 1) + [True]
    assert len({one.name for one in proposals([f for one in pages for f in one.findings], "c")}) == 500


def test_what_vanishes_and_appears_between_pages_disturbs_nothing_else(volume: Volume) -> None:
    names = _fill(volume, 120)
    first = volume.page()
    after = first.message["after"]
    told = [finding.path for finding in first.findings]
    (volume.root / after).unlink()
    gone = names[len(told) + 3]
    (volume.root / gone).unlink()
    volume.put("0000.gguf", gguf_content())  # before the cursor: the next look at the volume finds it
    volume.put(f"{after}-later.gguf", gguf_content())
    pages = [first]
    while pages[-1].message["more"]:
        pages.append(volume.page("--after", pages[-1].message["after"]))
    rest = [finding.path for one in pages[1:] for finding in one.findings]
    assert rest == sorted({*names[len(told) :], f"{after}-later.gguf"} - {gone})


def test_a_file_that_vanishes_after_the_walk_is_passed_over(volume: Volume) -> None:
    _fill(volume, 3)
    with Tree(volume.root) as tree:
        candidates = scan(tree)
        (volume.root / candidates[1].found.path).unlink()
        made = page(tree, candidates, None)
    assert [one.path for one in made.found] == [candidates[0].found.path, candidates[2].found.path]
    assert (made.more, made.skipped) == (False, 1)


def test_what_is_passed_over_adds_up_over_the_pages(volume: Volume) -> None:
    names = _fill(volume, 60)
    for name in names[::10]:
        (volume.root / name).unlink()
        volume.put(name, b"no model")
    volume.put("broken-00001-of-00002.gguf", gguf_content())
    pages = volume.pages()
    assert len(pages) > 1
    assert sum(one.message["skipped"] for one in pages) == 7
    assert sum(len(one.message["found"]) for one in pages) == 54


def test_only_what_a_page_has_room_for_is_opened(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(volume, 200)
    opened: list[str] = []
    read = Tree.read
    monkeypatch.setattr(Tree, "read", lambda self, file, *more: opened.append(file.path) or read(self, file, *more))
    found = volume.page().message["found"]
    assert len(set(opened)) == len(found) + 1


def test_a_cursor_that_is_nowhere_any_more_is_only_a_place(volume: Volume) -> None:
    names = _fill(volume, 3)
    assert [one.path for one in volume.page("--after", "0").findings] == names
    assert volume.page("--after", "~").message["found"] == []


def test_while_it_looks_it_can_be_asked_whether_it_lives(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = []
    enter = ProgressEndpoint.__enter__
    monkeypatch.setattr(ProgressEndpoint, "__enter__", lambda self: ports.append(self.port) or enter(self))
    volume.page("--host", "127.0.0.1", "--port", "0")
    assert ports[0] > 0


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters='"\\#/$.'), min_size=1)
_WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,99}", fullmatch=True)
_PATH = (
    st.lists(_TEXT, min_size=1, max_size=8)
    .map("/".join)
    .map(lambda text: text.encode()[:380].decode("utf-8", "ignore"))
)


@given(
    st.lists(
        st.builds(
            Discovered,
            kind=st.sampled_from(Kind),
            path=_PATH.filter(lambda path: not path.endswith("/")),
            file=st.none() | _PATH.filter(lambda path: not path.endswith("/")),
            reference=st.none() | st.from_regex(r"[a-z][a-z:/]{0,199}", fullmatch=True),
            uri=st.none() | st.from_regex(r"hf://[a-z]{1,500}", fullmatch=True),
            bytes=st.integers(0, 2**63 - 1),
            files=st.integers(0, 2**63 - 1),
            refs=st.lists(_WORD, max_size=4).map(tuple),
            revision=_WORD,
            architecture=_WORD,
            quantization=_WORD,
            parameters=st.integers(0, 2**63 - 1),
        ),
        max_size=30,
        unique_by=lambda finding: finding.cursor,
    )
)
@settings(max_examples=30)
def test_whatever_is_found_fits_and_comes_back(findings: list[Discovered]) -> None:
    ordered = sorted(findings, key=lambda finding: finding.cursor)
    told: list[Discovered | None] = []
    after = None
    with Tree(Path(__file__).parent) as tree:
        while True:
            message = page(tree, [Candidate(finding) for finding in ordered], after).message()
            assert len(message) <= 4096
            document = json.loads(message)
            told += map(Discovered.from_document, document["found"])
            assert document["skipped"] == 0
            after = document["after"]
            if not document["more"]:
                break
    assert told == ordered


def test_hostile_headers_and_names_cost_little_memory(volume: Volume) -> None:
    """Lists that claim to be long, a sparse file of a tebibyte, and a folder with thousands of names."""
    volume.put("lie.gguf", b"GGUF" + (3).to_bytes(4, "little") + (2**63).to_bytes(8, "little") * 2 + bytes(2**20))
    volume.put_all("big", {"config.json": CONFIG, "model.safetensors": (2**40).to_bytes(8, "little")})
    os.truncate(volume.root / "big/model.safetensors", 2**40)
    volume.put_all("wide", {"config.json": CONFIG, "a.safetensors": safetensors("a")})
    for number in range(5000):
        (volume.root / f"wide/{number:05d}-of-{number:05d}").touch()
    tracemalloc.start()
    try:
        found = volume.page().findings
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [one.path for one in found] == ["big", "lie.gguf", "wide"]
    assert peak < 32 * 2**20


@pytest.mark.slow
def test_a_large_cache_is_walked_in_seconds(volume: Volume) -> None:
    """A thousand snapshots of twelve files: what a busy team gathers in years."""
    files = {**sharded(4), **{f"file{number}.txt": b"x" for number in range(6)}}
    for number in range(1000):
        volume.cache(f"org/model-{number}", files)
    begun = time.monotonic()
    with Tree(volume.root) as tree:
        assert len(scan(tree)) == 1000
    assert time.monotonic() - begun < 20
