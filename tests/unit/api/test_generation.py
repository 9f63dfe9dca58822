"""hack/generate: what is committed follows from the types."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from generation.__main__ import main
from generation.outputs import desired_files, stale_files
from unit.api.model_examples import load_examples

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SCHEMA_PATH = "docs/schema/berth.dev/model_v1alpha1.json"


def _write_all(root: Path) -> None:
    for path, text in desired_files().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_the_committed_files_are_fresh() -> None:
    assert stale_files(ROOT, desired_files()) == {}, "run hack/generate and commit the result"


def test_generating_twice_gives_the_same() -> None:
    assert desired_files() == desired_files()


def test_check_names_each_stale_file_and_writes_nothing(tmp_path: Path) -> None:
    _write_all(tmp_path)
    (tmp_path / "crds/models.berth.dev.yaml").write_text("old")
    (tmp_path / SCHEMA_PATH).unlink()
    result = CliRunner().invoke(main, ["--check", "--root", str(tmp_path)])
    assert result.exit_code == 1
    assert "crds/models.berth.dev.yaml: stale" in result.output
    assert f"{SCHEMA_PATH}: missing" in result.output
    assert "docs/reference" not in result.output
    assert (tmp_path / "crds/models.berth.dev.yaml").read_text() == "old"


def test_writing_makes_check_pass_and_removes_what_is_no_longer_generated(tmp_path: Path) -> None:
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds/gone.berth.dev.yaml").write_text(desired_files()["crds/models.berth.dev.yaml"])
    (tmp_path / "crds/written-by-hand.yaml").write_text("kind: Something\n")
    assert CliRunner().invoke(main, ["--root", str(tmp_path)]).exit_code == 0
    assert CliRunner().invoke(main, ["--check", "--root", str(tmp_path)]).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "crds").iterdir()) == [
        "gpunodes.berth.dev.yaml",
        "modelcaches.berth.dev.yaml",
        "models.berth.dev.yaml",
        "written-by-hand.yaml",
    ]


def test_the_reference_page_has_every_field_and_every_message() -> None:
    page = desired_files()["docs/reference/model.md"]
    schema = json.loads(desired_files()[SCHEMA_PATH])

    def names(node: dict[str, Any]) -> set[str]:
        children = [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
        below = [names(child) for child in children if isinstance(child, dict)]
        return set(node.get("properties", {})).union(*below)

    fields = names(schema["properties"]["spec"]) | names(schema["properties"]["status"])
    assert {field for field in fields if f"| `{field}` |" not in page} == set()
    assert [example.says for example in load_examples() if example.says not in page] == []


def test_links_of_the_reference_page_lead_somewhere() -> None:
    page = desired_files()["docs/reference/model.md"]
    headings = {line.lstrip("# ") for line in page.splitlines() if line.startswith("#")}
    anchors = {
        "".join(c for c in heading.lower() if c.isalnum() or c in "-_ ").replace(" ", "-") for heading in headings
    }
    linked = {part.split(")")[0] for part in page.split("](#")[1:]}
    assert linked - anchors == set()


@pytest.mark.parametrize(
    ("path", "keyword", "value"),
    [
        (("spec",), "additionalProperties", False),
        (("spec", "limits", "cpu"), "type", ["integer", "string"]),
        (("spec", "gpus", "products"), "uniqueItems", True),
        (("spec", "backend"), "enum", ["vllm", "sglang", "llamacpp", "ollama", "tgi", "custom"]),
        (("kind",), "const", "Model"),
    ],
)  # fmt: skip
def test_the_schema_for_editors_is_closed_and_typed(path: tuple[str, ...], keyword: str, value: Any) -> None:
    node = json.loads(desired_files()[SCHEMA_PATH])
    for name in path:
        node = node["properties"][name]
    assert node[keyword] == value


def test_the_schema_for_editors_leaves_the_pod_spec_open() -> None:
    schema = json.loads(desired_files()[SCHEMA_PATH])
    template = schema["properties"]["spec"]["properties"]["podTemplate"]
    assert template["additionalProperties"] is False
    assert "additionalProperties" not in template["properties"]["spec"]
