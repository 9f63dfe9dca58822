"""The chart's values: every one is explained and used, and what is wrong is refused by name."""

import json
from pathlib import Path

import pytest
import yaml

from berth.api.model import BackendName
from generation.chart_values import ValuesError, read_values, values_schema, values_table
from support.chart import CHART, Helm, rendered

WRONG = """
replicas: 3
operator: {replica: 3, replicas: 0, ephemeralMax: 20, logLevel: loud, backendImages: {vlm: x}}
image: {digest: latest, pullPolicy: never}
imagePullSecrets: [registry]
commonLabels: {app.kubernetes.io/name: x}
crds: {keep: maybe}
"""
REFUSED = (
    "at '': additional properties 'replicas' not allowed",
    "at '/operator': additional properties 'replica' not allowed",
    "at '/operator/replicas': minimum: got 0, want 1",
    "at '/operator/ephemeralMax': got number, want string",
    "at '/operator/logLevel': value must be one of 'debug', 'info', 'warning', 'error'",
    "at '/operator/backendImages': additional properties 'vlm' not allowed",
    "at '/image/digest': 'latest' does not match pattern",
    "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
    "at '/imagePullSecrets/0': got string, want object",
    "invalid propertyName 'app.kubernetes.io/name'",
    "at '/crds/keep': got string, want boolean",
)


@pytest.mark.parametrize("major", [3, 4])
def test_wrong_values_are_refused_by_name_all_at_once(major: int, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(WRONG)
    done = Helm(major)("template", "berth", str(CHART), "--values", str(file), check=False)
    assert done.returncode == 1
    assert [says for says in REFUSED if says not in done.stderr] == []


def test_an_older_cluster_is_refused() -> None:
    done = Helm(4)("template", "berth", str(CHART), "--kube-version=1.30.9", check=False)
    assert done.returncode == 1
    assert ">= 1.31.0-0" in done.stderr


def test_a_cluster_with_a_suffix_in_its_version_is_taken() -> None:
    assert rendered("--kube-version=v1.31.4-gke.1256000")


def test_every_value_is_used_by_a_template() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())

    def used(path: tuple[str, ...]) -> bool:
        within = f".{path[-1]}" in templates and f".Values.{path[0]} " in templates
        return f".Values.{'.'.join(path)}" in templates or within

    values = read_values((CHART / "values.yaml").read_text())
    assert [".".join(value.path) for value in values if not used(value.path)] == []


def test_the_defaults_pass_their_own_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert values.keys() | {"global"} == schema["properties"].keys()


def test_the_chart_can_be_a_part_of_another_one() -> None:
    assert rendered("--set=global.domain=example.com")


def test_images_of_all_backends_can_be_chosen() -> None:
    (images,) = (
        value for value in read_values((CHART / "values.yaml").read_text()) if value.path[-1] == "backendImages"
    )
    assert set(images.bounds["properties"]) == set(BackendName) - {BackendName.CUSTOM}


EXAMPLE = """
# What belongs together.
group:
  # -- How many,
  # in two lines.
  # @schema {minimum: 1}
  count: 2
  # -- Left | right.
  side: left
"""


def test_a_value_is_explained_and_bounded_by_its_comment() -> None:
    values = read_values(EXAMPLE)
    assert values_table(values).splitlines()[2:] == [
        "| `group.count` | `2` | How many, in two lines. |",
        '| `group.side` | `"left"` | Left \\| right. |',
    ]
    group = values_schema(values)["properties"]["group"]
    assert group["additionalProperties"] is False
    assert group["properties"]["count"] == {
        "description": "How many, in two lines.",
        "type": "integer",
        "default": 2,
        "minimum": 1,
    }


def test_a_value_without_an_explanation_is_an_error() -> None:
    with pytest.raises(ValuesError, match=r"no line `# -- …` explains group\.more"):
        read_values(EXAMPLE + "  more: 1\n")
