"""The chart of models, as both Helms render it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.api.crd import RESOURCES, custom_resource_definition
from berth.api.model import ModelSpec
from berth.api.model_cache import ModelCacheSpec
from catalogue.entries import read_catalogue
from support.chart import Helm
from support.models_chart import MODELS_CHART, everything, objects, refusal, template
from unit.api.admission import violations, with_defaults

pytestmark = pytest.mark.slow

CATALOGUE = read_catalogue()
KEYS = list(CATALOGUE.models)
MAJORS = pytest.mark.parametrize("major", [3, 4])
VALUES: dict[str, Any] = {
    "models": {
        "qwen3-8b": {
            "enabled": True, "name": "qwen", "labels": {"tier": "gold"}, "annotations": {"note": "ours"},
            "replicas": 0, "priority": 0, "gpus": {"count": 2, "products": ["NVIDIA-L40S"]},
            "serving": {"contextLength": None, "maxConcurrency": 32},
        },
        "qwen2-5-0-5b-gguf": {"enabled": True},
        "qwen3-8b-ollama": {"enabled": True, "source": {"cache": "own"}},
        "llama-3-1-8b": None,
        "phi-4": {"enabled": False},
    },
    "extraModels": {
        "ours": {"backend": "vllm", "source": {"uri": "pvc://weights/ours"}},
        "off": {"enabled": False, "backend": "vllm"},
    },
    "caches": {"default": {"storage": {"size": "500Gi"}}, "later": {"enabled": False, "storage": {"size": "1Gi"}}},
    "defaults": {
        "cache": "shared", "secretRef": {"name": "hugging-face"}, "priority": 50, "state": "Stopped",
        "gpus": {"resource": "amd.com/gpu", "products": ["AMD-Instinct-MI300X"]},
        "podTemplate": {"spec": {"tolerations": [{"key": "amd.com/gpu", "operator": "Exists"}]}},
    },
    "commonLabels": {"team": "a", "tier": "bronze"},
    "commonAnnotations": {"example.com/owner": "a"},
}  # fmt: skip


def spec(name: str, *args: str) -> dict[str, Any]:
    """The spec of one Model."""
    found: dict[str, Any] = objects(*args)["Model", name]["spec"]
    return found


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Values that use everything, as arguments of Helm."""
    path = tmp_path_factory.mktemp("values") / "values.yaml"
    path.write_text(yaml.safe_dump(VALUES))
    return ("--values", str(path))


def test_without_settings_nothing_is_installed() -> None:
    assert objects() == {}


@MAJORS
def test_one_setting_installs_a_model(major: int) -> None:
    found = objects("--set=models.qwen3-8b.enabled=true", major=major)
    model = found["Model", "qwen3-8b"]
    assert list(found) == [("Model", "qwen3-8b")]
    assert model["apiVersion"] == "berth.dev/v1alpha1"
    assert model["metadata"]["namespace"] == "team-a"
    expected = CATALOGUE.models["qwen3-8b"].spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert model["spec"] == expected


@MAJORS
def test_every_entry_is_rendered_as_the_catalogue_has_it(major: int) -> None:
    found = objects(everything(KEYS), major=major)
    assert sorted(name for _, name in found) == KEYS
    for key, entry in CATALOGUE.models.items():
        rendered = found["Model", key]["spec"]
        assert ModelSpec.model_validate(rendered) == entry.spec
        assert "replicas" not in rendered


@pytest.mark.slow
@MAJORS
@pytest.mark.parametrize("key", KEYS)
def test_every_entry_is_rendered_alone(key: str, major: int) -> None:
    found = objects(f"--set=models.{key}.enabled=true", major=major)
    assert list(found) == [("Model", key)]
    assert ModelSpec.model_validate(found["Model", key]["spec"]) == CATALOGUE.models[key].spec


def test_both_helms_render_the_same(mixed: tuple[str, ...]) -> None:
    assert template(3, *mixed) == template(4, *mixed)
    assert template(3, everything(KEYS)) == template(4, everything(KEYS))


@MAJORS
def test_lint_finds_nothing(major: int, mixed: tuple[str, ...]) -> None:
    for values in ((), mixed, (everything(KEYS),)):
        done = Helm(major)("lint", "--strict", str(MODELS_CHART), *values)
        assert "[WARNING]" not in done.stdout + done.stderr


def test_values_are_laid_over_the_entry(mixed: tuple[str, ...]) -> None:
    found = spec("qwen", *mixed)
    assert found["gpus"] == {"count": 2, "products": ["NVIDIA-L40S"], "resource": "amd.com/gpu"}
    assert found["serving"] == {"maxConcurrency": 32}, "null takes a field away"
    assert (found["replicas"], found["priority"]) == (0, 0), "nothing is not the same as not set"


def test_what_is_not_enabled_is_not_there(mixed: tuple[str, ...]) -> None:
    assert set(objects(*mixed)) == {
        ("Model", "qwen"), ("Model", "qwen2-5-0-5b-gguf"), ("Model", "qwen3-8b-ollama"), ("Model", "ours"),
        ("ModelCache", "default"),
    }  # fmt: skip


def test_defaults_hold_where_a_model_says_nothing(mixed: tuple[str, ...]) -> None:
    for name in ("qwen2-5-0-5b-gguf", "ours"):
        found = spec(name, *mixed)
        assert (found["priority"], found["state"]) == (50, "Stopped")
        assert found["podTemplate"] == VALUES["defaults"]["podTemplate"]


def test_a_model_without_gpus_takes_no_defaults_of_gpus(mixed: tuple[str, ...]) -> None:
    assert spec("qwen2-5-0-5b-gguf", *mixed)["gpus"] == {"count": 0}
    assert spec("ours", *mixed)["gpus"] == VALUES["defaults"]["gpus"]


def test_token_and_cache_go_where_they_are_of_use(mixed: tuple[str, ...]) -> None:
    assert spec("qwen", *mixed)["source"]["secretRef"] == {"name": "hugging-face"}
    assert spec("qwen", *mixed)["source"]["cache"] == "shared"
    assert spec("qwen3-8b-ollama", *mixed)["source"] == {"uri": "ollama://qwen3:8b", "cache": "own"}
    assert spec("ours", *mixed)["source"] == {"uri": "pvc://weights/ours"}


def test_labels_and_annotations(mixed: tuple[str, ...]) -> None:
    metadata = objects(*mixed)["Model", "qwen"]["metadata"]
    assert metadata["labels"].items() >= {"team": "a", "tier": "gold", "app.kubernetes.io/managed-by": "Helm"}.items()
    assert metadata["annotations"] == {"example.com/owner": "a", "note": "ours"}
    assert objects(*mixed)["ModelCache", "default"]["metadata"]["labels"]["tier"] == "bronze"


def test_the_api_would_take_all_of_it(mixed: tuple[str, ...]) -> None:
    schemas = {
        one.kind: custom_resource_definition(one)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for one in RESOURCES
    }
    for (kind, _), found in objects(*mixed).items():
        (ModelSpec if kind == "Model" else ModelCacheSpec).model_validate(found["spec"])
        assert list(violations(schemas[kind], with_defaults(schemas[kind], found))) == []


@MAJORS
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("models.qwen3-9b.enabled=true", 'models.qwen3-9b: the catalogue has no model "qwen3-9b"; `helm show readme`'),
        ("models.qwen3-9b.enabled=false", "models.qwen3-9b: the catalogue has no model"),
        ("models.qwen3-8b.gpus.cuont=1", "'cuont' not allowed"),
        ("models.qwen3-8b.enabled=perhaps", "got string, want boolean"),
        ("models.qwen3-8b.backend=gpt", "value must be one of 'vllm'"),
        ("models.qwen3-8b.replicas=-1", "minimum: got -1, want 0"),
        ("models.qwen3-8b=true", "got boolean, want null or object"),
        ("modles.qwen3-8b.enabled=true", "'modles' not allowed"),
        ("extraModels.ours.source.uri=hf://a/b", "missing property 'backend'"),
        ("extraModels.ours.backend=vllm,extraModels.ours.source.uri=a/b", "does not match pattern"),
        ("caches.default.limit=1Gi", "missing property 'storage'"),
        ("caches.default.storage.sise=1Gi", "'sise' not allowed"),
        ("defaults.backend=vllm", "'backend' not allowed"),
        ("defaults.secretRef.token=abc", "'token' not allowed"),
    ],
)
def test_a_mistake_is_refused_by_name(major: int, setting: str, says: str) -> None:
    assert says in refusal(major, f"--set={setting}")


def test_two_models_of_one_name_are_refused() -> None:
    both = everything(["qwen3-8b", "qwen3-4b"])
    assert "set models.qwen3-8b.name" in refusal(4, both, "--set=models.qwen3-4b.name=qwen,models.qwen3-8b.name=qwen")
    taken = refusal(4, both, "--set=extraModels.qwen3-8b.backend=vllm")
    assert "extraModels.qwen3-8b: this name is taken by models.qwen3-8b" in taken


@pytest.mark.parametrize(
    ("values", "says", "leaves_out"),
    [
        ("models.qwen3-8b.enabled=true", ["qwen3-8b: Qwen3 8B (BF16), Apache-2.0", "1 x 35.9 GiB"], ["terms", "Cache"]),
        ("models.smollm2-1-7b-gguf.enabled=true", ["GiB of host memory"], ["GPU memory"]),
        ("models.llama-3-3-70b.enabled=true", ["accept them there", "caches.default.storage.size=500Gi"], []),
        (
            "models.llama-3-3-70b.enabled=true,defaults.secretRef.name=hub,caches.default.storage.size=1Ti",
            ["4 x 45.2 GiB"],
            ["accept them there", "500Gi"],
        ),
    ],
)
def test_the_notes_say_what_is_needed(values: str, says: list[str], leaves_out: list[str]) -> None:
    """Helm 3 asks a cluster even for this: there, the notes are seen when the chart is really installed."""
    done = Helm(4)("install", "models", str(MODELS_CHART), "--dry-run=client", f"--set={values}")
    notes = done.stdout.split("NOTES:")[1]
    assert [text for text in says if text not in notes] == []
    assert [text for text in leaves_out if text in notes] == []


def test_the_chart_is_small_enough_for_a_release(tmp_path: Path) -> None:
    Helm(4)("package", str(MODELS_CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.iterdir()
    assert package.stat().st_size < 200_000, "Helm keeps the chart in a Secret, which holds 1 MiB"


def test_the_schema_has_every_field_of_a_spec() -> None:
    schema = json.loads((MODELS_CHART / "values.schema.json").read_text())
    fields = {field.alias or name for name, field in ModelSpec.model_fields.items()}
    for name in ("override", "model"):
        assert fields <= set(schema["definitions"][name]["properties"])
