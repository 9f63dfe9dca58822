"""Manifests that people copy out of the documentation, and the files in examples/, are ones that Berth accepts."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from berth.api.base import API_VERSION
from berth.api.crd import RESOURCES, custom_resource_definition
from unit.api.admission import violations, with_defaults
from unit.docs.pages import ROOT, blocks

KINDS = {resource.kind: resource for resource in RESOURCES}
SCHEMAS = {
    kind: custom_resource_definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for kind, resource in KINDS.items()
}


def _manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    texts = [(block.page, block.text) for block in blocks() if block.language == "yaml"]
    texts += [(f"examples/{path.name}", path.read_text()) for path in sorted((ROOT / "examples").glob("*.yaml"))]
    for where, text in texts:
        for document in yaml.safe_load_all(text):
            if isinstance(document, dict) and document.get("apiVersion") == API_VERSION:
                yield where, document


MANIFESTS = list(_manifests())


def test_every_yaml_block_is_yaml() -> None:
    for block in blocks():
        if block.language == "yaml":
            list(yaml.safe_load_all(block.text))


@pytest.mark.parametrize(("where", "manifest"), MANIFESTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_manifest_fits_the_types_and_their_rules(where: str, manifest: dict[str, Any]) -> None:
    kind = manifest["kind"]
    whole = with_defaults(SCHEMAS[kind], manifest)
    KINDS[kind].type.model_validate({"spec": whole["spec"], "status": whole.get("status", {})})
    assert list(violations(SCHEMAS[kind], whole)) == []


def test_documentation_shows_models_of_every_backend() -> None:
    shown = {manifest["spec"]["backend"] for _, manifest in MANIFESTS if manifest["kind"] == "Model"}
    assert shown == {"vllm", "sglang", "llamacpp", "ollama", "tgi", "custom"}
