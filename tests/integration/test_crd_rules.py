"""The table of examples of the unit tests, decided by a real API server."""

import re

import pytest
import yaml

from support.kube import Cluster
from unit.api.model_examples import Example, load_examples, model

pytestmark = pytest.mark.control_plane

EXAMPLES = load_examples()


@pytest.fixture(scope="module")
def answers(control_plane: Cluster) -> dict[str, str]:
    """What the API server says to each example, by the name of the Model. One call of kubectl for all."""
    manifests = [manifest for example in EXAMPLES for manifest in (example.refused, example.accepted)]
    done = control_plane.kubectl(
        "create", "--dry-run=server", "-f", "-", input=yaml.safe_dump_all(manifests), check=False
    )
    found: dict[str, str] = {}
    for created in re.findall(r"^model\.berth\.dev/(\S+) created", done.stdout, re.M):
        found[created] = "created"
    for refused, complaint in re.findall(r'^.*"([^"]+)" is invalid: (.*)$', done.stderr, re.M):
        found[refused] = complaint
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_api_server_refuses_with_path_and_message(example: Example, answers: dict[str, str]) -> None:
    answer = answers[example.refused["metadata"]["name"]]
    assert answer.startswith(f"{example.at}: "), "several complaints would begin with a bracket"
    assert example.says in answer


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_api_server_accepts(example: Example, answers: dict[str, str]) -> None:
    assert answers[example.accepted["metadata"]["name"]] == "created"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"serving": {"env": [{"name": "A"}, {"name": "A"}]}}, 'spec.serving.env[1]: Duplicate value: {"name":"A"}'),
        ({"serving": {"servedNames": ["a", "a"]}}, 'spec.serving.servedNames[1]: Duplicate value: "a"'),
        ({"gpus": {"products": ["a", "a"]}}, 'spec.gpus.products[1]: Duplicate value: "a"'),
        ({"backend": "gpt"}, 'spec.backend: Unsupported value: "gpt": supported values: "vllm", '),
        ({"podTemplate": "text"}, "spec.podTemplate: Invalid value"),
        ({"podTemplate": {"metadata": {"labels": {"a": 1}}}}, "spec.podTemplate.metadata.labels.a: Invalid value"),
        ({"replicas": -1}, "spec.replicas: Invalid value: -1"),
        ({"gpus": {"count": 65}}, "spec.gpus.count: Invalid value: 65"),
        ({"limits": {"cpu": 0.5}}, "spec.limits.cpu: Invalid value"),
    ],
)
def test_what_the_schema_alone_refuses(control_plane: Cluster, spec: dict[str, object], says: str) -> None:
    manifest = yaml.safe_dump(model(spec))
    done = control_plane.kubectl("create", "--dry-run=server", "-f", "-", input=manifest, check=False)
    assert done.returncode == 1
    assert says in done.stderr


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"backed": "vllm"}, "spec.backed"),
        ({"gpus": {"indexes": [0]}}, "spec.gpus.indexes"),
        ({"serving": {"env": [{"name": "A", "vaule": "b"}]}}, "spec.serving.env[0].vaule"),
        ({"podTemplate": {"tolerations": []}}, "spec.podTemplate.tolerations"),
        ({"podTemplate": {"metadata": {"name": "x"}}}, "spec.podTemplate.metadata.name"),
    ],
)
@pytest.mark.parametrize("how", [["create"], ["apply", "--server-side"]], ids=["create", "server-side-apply"])
def test_an_unknown_field_is_refused(
    control_plane: Cluster, how: list[str], spec: dict[str, object], field: str
) -> None:
    manifest = yaml.safe_dump(model(spec))
    done = control_plane.kubectl(*how, "--dry-run=server", "-f", "-", input=manifest, check=False)
    assert done.returncode == 1
    assert field.rsplit(".", 1)[-1] in done.stderr
    assert "unknown field" in done.stderr or "field not declared in schema" in done.stderr
