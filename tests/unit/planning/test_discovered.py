"""Findings are not trusted, and whatever passes for one gets a Model that the API takes."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.model import BackendName, Source
from berth.planning.discovered import Discovered, Kind, ProposedModel, proposal, proposals
from berth.provision.listing import select

COMMIT = "a" * 40
LONGEST_CLAIM = "c" * 253
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

hub = {"kind": "HuggingFace", "path": f"hub/models--Qwen--Qwen2.5-GGUF/snapshots/{COMMIT}"}


def finding(**changes: Any) -> Discovered:
    document = {"kind": "GGUF", "path": "x.gguf", "bytes": 5, "files": 1, **changes}
    found = Discovered.from_document({key: value for key, value in document.items() if value is not None})
    assert found is not None
    return found


def proposed(**changes: Any) -> ProposedModel:
    return proposal(finding(**changes), "weights")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"path": "Llama-3.2-1B-Instruct-Q4_K_M.gguf"}, "llama-3-2-1b-instruct-q4-k-m"),
        ({"path": "big/Qwen3-00001-of-00004.gguf"}, "qwen3"),
        ({"path": "Phi-4/ggml-model-q4_0.gguf"}, "phi-4-q4-0"),
        ({"path": "Phi-4/model.gguf"}, "phi-4"),
        ({"path": "Phi-4/Q8_0.gguf"}, "phi-4-q8-0"),
        ({"path": "F5-TTS.gguf"}, "f5-tts"),
        ({"path": "model.gguf"}, "model"),
        ({"path": "7b.gguf"}, "model-7b"),
        ({"path": "Mödel.gguf"}, "model"),
        ({"path": "模型.gguf"}, "model"),
        ({"path": "x" * 60 + ".gguf"}, "x" * 52),
        ({"path": "x" * 51 + "-yz.gguf"}, "x" * 51),
        ({"kind": "Safetensors", "path": "mine/Qwen2.5-0.5B"}, "qwen2-5-0-5b"),
        ({"kind": "Safetensors", "path": "."}, "model"),
        ({**hub, "uri": f"hf://Qwen/Qwen2.5-1.5B@{COMMIT}"}, "qwen2-5-1-5b"),
        (
            {**hub, "uri": f"hf://Qwen/Qwen2.5-GGUF@{COMMIT}", "file": "Q8_0/model-Q8_0-00001-of-00002.gguf"},
            "qwen2-5-q8-0",
        ),
        ({"kind": "Ollama", "path": ".", "reference": "llama3.2:1b"}, "llama3-2-1b"),
        ({"kind": "Ollama", "path": ".", "reference": "me/llama3.2:latest"}, "llama3-2"),
        ({"kind": "Ollama", "path": ".", "reference": "hf.co/org/Phi-4-GGUF:Q4_K_M"}, "phi-4-q4-k-m"),
    ],
)
def test_names_say_what_it_is(changes: dict[str, Any], name: str) -> None:
    assert proposed(**changes).name == name


@pytest.mark.parametrize(
    ("changes", "backend"),
    [
        ({}, BackendName.LLAMACPP),
        ({**hub, "file": "x.gguf", "format": "gguf"}, BackendName.LLAMACPP),
        ({**hub, "format": "safetensors"}, BackendName.VLLM),
        ({**hub, "format": "safetensors", "quantization": "awq"}, BackendName.VLLM),
        ({**hub, "format": "safetensors", "quantization": "w8a8_fp8"}, BackendName.SGLANG),
        ({**hub, "format": "safetensors", "quantization": "nobody-knows"}, BackendName.VLLM),
        ({"kind": "Ollama", "path": ".", "reference": "a:b", "format": "gguf"}, BackendName.OLLAMA),
        ({"kind": "Berth", "path": "a", "uri": "ollama://a:b"}, BackendName.OLLAMA),
        ({"kind": "Berth", "path": "a", "uri": "https://host/x", "file": "x.gguf"}, BackendName.LLAMACPP),
        ({"kind": "Berth", "path": "a", "uri": "hf://a/b"}, BackendName.VLLM),
    ],
)
def test_backends_load_what_is_there(changes: dict[str, Any], backend: BackendName) -> None:
    assert proposed(**changes).backend is backend


@pytest.mark.parametrize(
    ("changes", "uri", "files"),
    [
        ({"path": "a/x.gguf"}, "pvc://weights/a/x.gguf", ()),
        ({"kind": "Safetensors", "path": "a"}, "pvc://weights/a", ()),
        ({"kind": "Safetensors", "path": "."}, "pvc://weights", ()),
        ({**hub, "uri": f"hf://a/b@{COMMIT}", "format": "safetensors"}, f"hf://a/b@{COMMIT}", ()),
        ({**hub, "uri": f"hf://a/b@{COMMIT}", "file": "q/x.gguf"}, f"hf://a/b@{COMMIT}", ("q/x.gguf",)),
        ({**hub, "path": "m", "file": "q/x.gguf"}, "pvc://weights/m/q/x.gguf", ()),
        ({**hub, "path": "m", "uri": "hf://a/b@x/../y", "file": "x.gguf"}, "pvc://weights/m/x.gguf", ()),
        ({**hub, "path": "m", "uri": "hf://a/b", "file": "x" * 260 + ".gguf"}, f"pvc://weights/m/{'x' * 260}.gguf", ()),
        ({"kind": "Ollama", "path": "o", "reference": "a:b", "uri": "ollama://a:b"}, "ollama://a:b", ()),
        ({"kind": "Ollama", "path": "o", "reference": "_a:b", "uri": "ollama://_a:b"}, "pvc://weights/o#_a:b", ()),
        ({"kind": "Ollama", "path": ".", "reference": "_a:b"}, "pvc://weights/#_a:b", ()),
        ({"kind": "Berth", "path": "d", "uri": "https://host/x.gguf", "file": "x.gguf"}, "pvc://weights/d/x.gguf", ()),
    ],
)
def test_the_name_on_the_hub_comes_first_and_then_the_place(
    changes: dict[str, Any], uri: str, files: tuple[str, ...]
) -> None:
    model = proposed(**changes)
    assert (model.uri, model.files) == (uri, files)


def test_files_take_all_parts_of_a_split_model_and_nothing_else() -> None:
    model = proposed(**hub, uri="hf://a/b", file="q[4]/x*-00001-of-00002.gguf")
    parts = ["q[4]/x*-00001-of-00002.gguf", "q[4]/x*-00002-of-00002.gguf"]
    others = ["q4/x*-00001-of-00002.gguf", "q[4]/xy-00001-of-00002.gguf", "q[4]/x*-00001-of-00003.gguf"]
    assert select([*parts, *others], model.files) == parts


def test_the_same_name_is_given_once_and_the_current_commit_keeps_it() -> None:
    def snapshot(owner: str, commit: str, **more: Any) -> Discovered:
        path = f"hub/models--{owner}--M/snapshots/{commit * 40}"
        return finding(kind="HuggingFace", path=path, uri=f"hf://{owner}/M@{commit * 40}", revision=commit * 40, **more)

    findings = [snapshot("a", "1"), snapshot("a", "2", refs=["main"]), snapshot("b", "3"), snapshot("a", "4")]
    assert [one.name for one in proposals(findings, "c")] == ["a-m", "m", "b-m", "m-4444444"]


def test_a_name_of_its_own_is_not_taken_by_another() -> None:
    twins = [finding(path="a/x.gguf"), finding(path="b/x.gguf")]
    second = proposals(twins, "c")[1].name
    assert second.startswith("x-")
    names = [one.name for one in proposals([*twins, finding(path=f"{second}.gguf")], "c")]
    assert names[0] == "x"
    assert names[2] == second
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    "document",
    [
        None,
        5,
        "text",
        [],
        {},
        {1: 2},
        {"kind": "GGUF", "path": "x.gguf", "bytes": 5},
        *(
            {"kind": "GGUF", "path": "x.gguf", "bytes": 5, "files": 1, **wrong}
            for wrong in (
                {"kind": "Other"},
                {"kind": None},
                {"path": ""},
                {"path": "/etc/passwd"},
                {"path": "a/../b"},
                {"path": "a//b"},
                {"path": "./a"},
                {"path": "a b"},
                {"path": "a#b"},
                {"path": "a\u2028b"},
                {"path": "\ud800"},
                {"path": "$(HOME)"},
                {"path": "ü" * 191},
                {"path": 5},
                {"file": ".."},
                {"bytes": -1},
                {"bytes": True},
                {"bytes": "5"},
                {"bytes": 1.5},
                {"bytes": 2**63},
                {"uri": "no uri"},
                {"uri": "hf://" + "a" * 600},
                {"reference": "$(x)"},
                {"refs": "main"},
                {"refs": ["a", "b", "c", "d", "e"]},
                {"request": "short"},
                {"format": "onnx"},
                {"architecture": "<script>"},
                {"revision": ""},
                {"parameters": -5},
            )
        ),
    ],
)
def test_nonsense_is_no_finding(document: object) -> None:
    assert Discovered.from_document(document) is None


def test_what_is_not_known_yet_is_no_nonsense() -> None:
    assert finding(something={"new": 1}) == finding()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_NAMES = ["kind", "path", "bytes", "files", "uri", "file", "reference", "revision", "refs", "request", "format"]
_FIGURES = ["architecture", "quantization", "parameters", "contextLength", "context_length", "self", "cls"]
_CHARACTERS = st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters='"\\#/')
_PART = st.text(_CHARACTERS, min_size=1, max_size=12) | st.sampled_from(
    ["model", "x-00001-of-00002.gguf", "Q4_K_M.gguf", "a" * 100, "-", ".gguf", "ggml-model.gguf", "*", "[a]"]
)
_PATHS = st.lists(_PART, min_size=1, max_size=5).map("/".join)
_URIS = st.builds(
    "{}://{}{}".format,
    st.sampled_from(["hf", "ollama", "https", "s3", "pvc"]),
    _PATHS,
    st.sampled_from(["", "@main", f"@{COMMIT}", ":latest", ":1b", "@a/../b"]),
)
_FINDINGS = st.fixed_dictionaries(
    {"kind": st.sampled_from(list(Kind)), "path": _PATHS, "bytes": st.integers(0, 2**40), "files": st.just(1)},
    optional={
        "uri": _URIS,
        "file": _PATHS,
        "reference": st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,40}", fullmatch=True),
        "revision": st.sampled_from([COMMIT, "sha256:" + "e" * 64, "-"]),
        "refs": st.sampled_from([["main"], []]),
        "format": st.sampled_from(["gguf", "safetensors"]),
        "quantization": st.sampled_from(["awq", "w8a8_fp8", "unnamed"]),
    },
).map(Discovered.from_document)


@given(_JSON | st.dictionaries(st.sampled_from(_NAMES + _FIGURES), _JSON))
def test_any_json_is_a_finding_or_none(document: Any) -> None:
    found = Discovered.from_document(document)
    assert found is None or Discovered.from_document(found.document()) == found


@given(st.lists(_FINDINGS, max_size=12), st.randoms())
def test_every_finding_gets_a_model_that_the_api_takes(drawn: list[Discovered | None], random: Any) -> None:
    findings = [found for found in drawn if found is not None]
    made = proposals(findings, LONGEST_CLAIM)
    assert len({one.name for one in made}) == len(findings)
    for found, one in zip(findings, made, strict=True):
        assert NAME.fullmatch(one.name)
        assert len(one.name) <= 52
        source = {"uri": one.uri, **({"files": list(one.files)} if one.files else {})}
        assert Source.model_validate(source)
        assert one.bytes == found.bytes
        assert Discovered.from_document(found.document()) == found
    order = list(range(len(findings)))
    random.shuffle(order)
    shuffled = proposals([findings[at] for at in order], LONGEST_CLAIM)
    if len(set(findings)) == len(findings):
        assert [made[at] for at in order] == shuffled
