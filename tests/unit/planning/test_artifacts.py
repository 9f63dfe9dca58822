"""What an artifact is: the same for everybody who writes the same, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.artifacts import Artifact, artifact_of, cache_of, file_name, found_for, ollama_reference, secret_of

URIS = st.sampled_from(["hf://org/a", "hf://org/a@v1", "https://host/a.gguf", "https://host/b/a.gguf", "ollama://a:1"])


def name(uri: str, **source: Any) -> str:
    artifact = artifact_of({"uri": uri, **source})
    assert artifact is not None
    return artifact.name


# ---- identity -------------------------------------------------------------------------------------------


def test_the_order_of_globs_makes_no_other_artifact() -> None:
    assert name("hf://org/a", files=["x", "y"]) == name("hf://org/a", files=["y", "x"])


def test_secret_and_cache_are_no_part_of_what_it_is() -> None:
    """Who may fetch it, and where it is kept, changes nothing in it."""
    assert name("hf://org/a", secretRef={"name": "s"}, cache="big") == name("hf://org/a")


@given(
    st.lists(st.tuples(URIS, st.sets(st.sampled_from("xyz")), st.sampled_from(["", "a" * 64])), min_size=2, max_size=6)
)
def test_different_artifacts_have_different_folders(sources: list[tuple[str, set[str], str]]) -> None:
    artifacts = {Artifact(uri, tuple(sorted(files)), digest) for uri, files, digest in sources}
    assert len({artifact.name for artifact in artifacts}) == len(artifacts)


@given(st.text(max_size=200))
def test_a_folder_has_a_name_that_kubernetes_takes_as_a_label(rest: str) -> None:
    found = Artifact(f"https://host/{rest}").name
    assert len(found) <= 45
    assert all(character in "abcdefghijklmnopqrstuvwxyz0123456789-" for character in found)
    assert found[0] != "-"


@pytest.mark.parametrize(
    ("uri", "readable"),
    [
        ("hf://meta-llama/Llama-3.1-8B@main", "llama-3-1-8b"),
        ("https://host/path/Tiny.Q4_K_M.gguf?signature=x", "tiny-q4-k-m"),
        ("ollama://llama3.2:1b", "llama3-2-1b"),
        ("s3://bucket/models/mine/", "mine"),
        ("s3://bucket", "bucket"),
        ("hf://org/...", "artifact"),
    ],
)
def test_a_folder_can_be_recognised(uri: str, readable: str) -> None:
    assert name(uri).rpartition("-")[0] == readable


def test_a_signature_is_not_shown() -> None:
    assert Artifact("https://host/a.gguf?sig=secret").shown_uri == "https://host/a.gguf"
    assert Artifact("s3://bucket/what?").shown_uri == "s3://bucket/what?"


# ---- where it belongs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", [None, {}, {"uri": "pvc://claim/a"}, {"uri": "oci://image"}, {"uri": "levitate://x"}]
)
def test_what_is_mounted_is_no_artifact_and_needs_no_cache(source: dict[str, Any] | None) -> None:
    assert artifact_of(source) is None
    assert cache_of({"source": source}) is None


def test_a_source_belongs_to_the_cache_that_it_names_or_to_the_default_one() -> None:
    assert cache_of({"source": {"uri": "hf://org/a"}}) == "default"
    assert cache_of({"source": {"uri": "hf://org/a", "cache": "big"}}) == "big"
    assert cache_of({}) is None


def test_a_secret_is_named_or_not() -> None:
    assert secret_of({"secretRef": {"name": "s"}}) == "s"
    assert secret_of({"secretRef": None}) == secret_of({}) == ""


# ---- the file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("artifact", "expected"),
    [
        (Artifact("https://host/a%20b.gguf?x=1"), "a b.gguf"),
        (Artifact("s3://bucket/deep/A.GGUF"), "A.GGUF"),
        (Artifact("s3://bucket/deep"), ""),
        (Artifact("hf://org/a", ("Q4/a.gguf",)), "Q4/a.gguf"),
        (Artifact("hf://org/a", ("*.gguf",)), ""),
        (Artifact("hf://org/a", ("a.gguf", "b.gguf")), ""),
        (Artifact("hf://org/a"), ""),
    ],
)
def test_the_name_of_the_only_file_where_the_source_says_it(artifact: Artifact, expected: str) -> None:
    assert file_name(artifact) == expected


# ---- what was found -------------------------------------------------------------------------------------


def found(uri: str, **more: Any) -> dict[str, Any]:
    return {"name": "found-1", "uri": uri, "adopted": True, **more}


@pytest.mark.parametrize(
    ("wanted", "there", "fits"),
    [
        ("hf://org/a", "hf://org/a@abc", True),
        ("hf://org/a@abc", "hf://org/a@abc", True),
        ("hf://org/a@main", "hf://org/a@abc", True),
        ("hf://org/a@v2", "hf://org/a@abc", False),
        ("hf://org/a", "hf://org/ab", False),
        ("ollama://llama3", "ollama://llama3:latest", True),
        ("ollama://llama3:1b", "ollama://llama3:latest", False),
        ("ollama://host:5000/llama3", "ollama://host:5000/llama3:latest", True),
        ("https://host/a.gguf", "https://host/a.gguf", False),
    ],
)
def test_what_was_found_is_known_by_its_name_on_the_hub(wanted: str, there: str, fits: bool) -> None:
    assert bool(found_for(Artifact(wanted), [found(there)])) is fits


def test_globs_choose_among_what_was_found() -> None:
    both = [found("hf://org/a", file=file) for file in ("a-Q4.gguf", "a-Q8.gguf")]
    assert found_for(Artifact("hf://org/a", ("*Q8*",)), both) == [both[1]]
    assert found_for(Artifact("hf://org/a"), both) == both


def test_a_download_is_not_taken_for_something_found() -> None:
    assert found_for(Artifact("hf://org/a"), [{"name": "a-1", "uri": "hf://org/a"}]) == []


def test_files_of_unknown_origin_are_nobodys() -> None:
    assert found_for(Artifact("hf://org/a"), [{"name": "found-1", "adopted": True}]) == []


def test_ollama_has_a_name_with_a_tag() -> None:
    assert ollama_reference("ollama://llama3") == "llama3:latest"
    assert ollama_reference("ollama://host:5000/a/b:1b") == "host:5000/a/b:1b"
