"""The catalogue of models: its figures agree with what is published, and what is shown is Berth's own estimate."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from berth.api.crd import RESOURCES, custom_resource_definition
from berth.api.model import BackendName
from berth.planning import compatibility
from berth.planning.gguf_figures import figures_from_gguf
from berth.planning.gguf_metadata import GgufHeader
from berth.planning.memory_estimate import PartName, estimate
from berth.planning.model_figures import WeightsFormat
from catalogue.chart import gib_text
from catalogue.entries import Kind, read_catalogue
from catalogue.figures import further_parameters, need
from catalogue.tensors import tensors, text_config
from unit.api.admission import violations, with_defaults

ROOT = Path(__file__).resolve().parents[3]
CATALOGUE = read_catalogue()
pytestmark = pytest.mark.slow
NEEDS = {key: need(CATALOGUE, key) for key in CATALOGUE.models}
ESTIMATES = yaml.safe_load((ROOT / "charts/models/estimates.yaml").read_text())
SCHEMA = next(
    custom_resource_definition(one)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for one in RESOURCES
    if one.kind == "Model"
)
KEYS = sorted(CATALOGUE.models)
ARCHITECTURES = sorted(CATALOGUE.architectures)
WITH_IMAGES = {entry.architecture for entry in CATALOGUE.models.values() if entry.kind is Kind.VISION}

GGUF_ARCHITECTURES = {
    "mistral": "llama",
    "qwen3_moe": "qwen3moe",
    "gemma3_text": "gemma3",
    "gpt_oss": "gpt-oss",
    "xlm-roberta": "bert",
    "nomic_bert": "nomic-bert",
}
"""How llama.cpp calls families that it calls otherwise (gguf-py, constants.py)."""
GGUF_KEYS = {
    "num_hidden_layers": "block_count", "n_layer": "block_count",
    "num_attention_heads": "attention.head_count", "n_head": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
    "hidden_size": "embedding_length", "n_embd": "embedding_length",
    "intermediate_size": "feed_forward_length", "n_inner": "feed_forward_length",
    "max_position_embeddings": "context_length", "n_positions": "context_length",
    "sliding_window": "attention.sliding_window",
}  # fmt: skip
PUBLISHED_SIZES = {
    "qwen3-8b-gguf": 5_027_783_488,
    "qwen3-30b-a3b-gguf": 18_556_685_824,
    "llama-3-2-3b-gguf": 2_019_377_696,
    "llama-3-1-8b-gguf": 4_920_739_232,
    "smollm3-3b-gguf": 1_915_305_312,
    "phi-4-mini-gguf": 2_491_874_272,
    "gpt-oss-20b-gguf": 12_109_566_624,
    "nomic-embed-text-gguf": 274_290_560,
}
"""Bytes of files that were published, as people list them; each has a few MB of vocabulary before the weights."""


def test_the_catalogue_is_broad() -> None:
    entries = CATALOGUE.models.values()
    assert len(entries) >= 40
    assert {entry.kind for entry in entries} == set(Kind)
    backends = {entry.spec.backend for entry in entries}
    assert backends == {BackendName.VLLM, BackendName.SGLANG, BackendName.LLAMACPP, BackendName.OLLAMA}
    sizes = [CATALOGUE.architectures[entry.architecture].parameters / 1e9 for entry in entries]
    assert sum(size < 2 for size in sizes) >= 10
    assert sum(size > 60 for size in sizes) >= 5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_configuration_leads_to_the_published_number_of_parameters(name: str) -> None:
    further = further_parameters(CATALOGUE.architectures[name])
    if name in WITH_IMAGES:
        assert 3e8 < further < 1e9, "a vision tower"
    else:
        assert further == 0


@pytest.mark.parametrize(("key", "size"), PUBLISHED_SIZES.items())
def test_the_rule_of_llama_quantize_leads_to_the_published_size(key: str, size: int) -> None:
    assert NEEDS[key].figures.weight_bytes == pytest.approx(size - 6_000_000, rel=0.002, abs=6_500_000)


def test_a_quantized_model_has_the_size_that_llama_server_tells() -> None:
    """`meta.size` in its answer to /v1/models: the tensors alone."""
    assert NEEDS["qwen3-8b-gguf"].figures.weight_bytes == 5_021_827_072


@pytest.mark.parametrize(
    ("key", "gigabytes"),
    [("gpt-oss-20b", 13.76), ("gpt-oss-120b", 65.25), ("llama-3-3-70b-fp8", 72.7), ("llama-3-1-8b", 16.06)],
)
def test_safetensors_have_the_published_size(key: str, gigabytes: float) -> None:
    assert (NEEDS[key].figures.weight_bytes or 0) / 1e9 == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize("key", [key for key in KEYS if NEEDS[key].figures.format is WeightsFormat.GGUF])
def test_berth_reads_the_same_from_the_header_of_a_gguf_file(key: str) -> None:
    entry, expected = CATALOGUE.models[key], NEEDS[key].figures
    config = text_config(CATALOGUE.architectures[entry.architecture].config)
    architecture = GGUF_ARCHITECTURES.get(config["model_type"], config["model_type"])
    if architecture == "gpt-oss" and entry.spec.backend is BackendName.OLLAMA:
        architecture = "gptoss"
    own = {GGUF_KEYS[field]: value for field, value in config.items() if field in GGUF_KEYS}
    if "attention.key_length" in own:
        own["attention.value_length"] = own["attention.key_length"]
    values = {"general.architecture": architecture, **{f"{architecture}.{name}": own[name] for name in own}}
    header = GgufHeader(3, values, False, 0, expected.weights, (), 0, None, 0)
    found = figures_from_gguf([header])
    assert found.unknowns == ()
    windowless = architecture == "phi3"  # llama.cpp sees all tokens there; the window is longer than the context
    assert found.attention == (
        tuple(replace(layer, window=None) for layer in expected.attention or ()) if windowless else expected.attention
    )
    assert found.embedding_length == expected.embedding_length


@pytest.mark.parametrize("key", KEYS)
def test_what_is_shown_is_what_berth_estimates(key: str) -> None:
    entry, shown = CATALOGUE.models[key], ESTIMATES[key]
    serving = entry.spec.serving
    assert serving is not None
    found = estimate(
        NEEDS[key].figures,
        backend=entry.spec.backend,
        context_length=serving.context_length,
        concurrency=serving.max_concurrency,
        tensor_parallel=entry.spec.gpus.count or 1,
    )
    assert (shown["total"], shown["least"]) == (found.required_mib, found.minimum_mib)
    assert [shown["weights"], shown["cache"], shown["overhead"]] == [part.mib for part in found.parts]
    row = re.search(rf"^\| `{key}` \|.*$", (ROOT / "charts/models/README.md").read_text(), re.M)
    assert row is not None
    assert gib_text(shown["total"]) in row[0]


def test_everything_shown_is_in_the_catalogue() -> None:
    assert sorted(ESTIMATES) == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_the_api_would_take_it(key: str) -> None:
    spec = CATALOGUE.models[key].spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    manifest = {"metadata": {"name": key}, "spec": spec}
    assert list(violations(SCHEMA, with_defaults(SCHEMA, manifest))) == []


@pytest.mark.parametrize("key", KEYS)
def test_its_backend_can_load_it(key: str) -> None:
    spec = CATALOGUE.models[key].spec
    assert compatibility.check(NEEDS[key].figures, spec.backend, spec.gpus.count) is None


@pytest.mark.parametrize("key", [key for key in KEYS if key != "deepseek-r1"])
def test_it_fits_the_gpus_that_it_asks_for(key: str) -> None:
    """80 GB of memory are 81559 MiB, of which vLLM takes 92 % unless told otherwise."""
    assert ESTIMATES[key]["total"] <= 0.92 * 81559


def test_the_largest_fits_eight_gpus_of_141_gb() -> None:
    assert ESTIMATES["deepseek-r1"]["total"] <= 0.92 * 143771
    assert CATALOGUE.models["deepseek-r1"].spec.gpus.count == 8


@pytest.mark.parametrize("key", KEYS)
def test_where_it_comes_from_is_where_its_link_leads(key: str) -> None:
    entry = CATALOGUE.models[key]
    source = entry.spec.source
    assert source is not None
    if entry.spec.backend is BackendName.OLLAMA:
        name, tag = source.uri.removeprefix("ollama://").split(":")
        assert (entry.link, bool(tag)) == (f"https://ollama.com/library/{name}", True)
    else:
        assert entry.link == f"https://huggingface.co/{source.uri.removeprefix('hf://')}"
        assert source.files, "a repository also holds copies of the weights in other formats"
    if entry.spec.backend is BackendName.LLAMACPP:
        (name,) = source.files or ()
        assert name.endswith(".gguf")


@pytest.mark.parametrize("key", KEYS)
def test_it_is_not_asked_for_a_longer_context_than_the_model_has(key: str) -> None:
    spec, figures = CATALOGUE.models[key].spec, NEEDS[key].figures
    assert spec.serving is not None
    assert (spec.serving.context_length or 0) <= (figures.context_length or 0)


@pytest.mark.parametrize("key", [key for key in KEYS if CATALOGUE.models[key].spec.gpus.count == 0])
def test_without_gpus_the_host_has_room_for_it(key: str) -> None:
    limits = CATALOGUE.models[key].spec.limits
    assert limits is not None
    assert limits.memory is not None
    assert int(limits.memory.removesuffix("Gi")) * 1024 > ESTIMATES[key]["total"]


def test_a_family_without_a_rule_is_named() -> None:
    with pytest.raises(ValueError, match="no rule for the tensors of rwkv"):
        list(tensors({"model_type": "rwkv"}))


def test_an_entry_that_cannot_be_estimated_is_named() -> None:
    architecture = CATALOGUE.architectures["qwen3-8b"]
    odd = architecture.model_copy(update={"config": {**architecture.config, "linear_num_key_heads": 16}})
    catalogue = CATALOGUE.model_copy(update={"architectures": {**CATALOGUE.architectures, "qwen3-8b": odd}})
    with pytest.raises(ValueError, match=r"models\.qwen3-8b has no estimate: architecture .* keep a state"):
        need(catalogue, "qwen3-8b")


@pytest.mark.parametrize(("text", "says"), [("models: {a: {}}", "architectures"), ("architectures: {}", "models")])
def test_a_file_with_a_mistake_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "family.yaml").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_catalogue(tmp_path)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "charts/models/catalogue/01ai.yaml").read_text()
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"b\.yaml: yi-.* is in another file too"):
        read_catalogue(tmp_path)


def test_weights_with_fewer_bits_need_less() -> None:
    sizes = {key: NEEDS[key].mib(PartName.WEIGHTS) for key in ("llama-3-1-8b", "llama-3-1-8b-gguf")}
    assert sizes["llama-3-1-8b-gguf"] < 0.3 * sizes["llama-3-1-8b"]
