"""hack/demo: which image it runs, and what the chart is told of it."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from support.chart import Helm
from walkthrough import main, values


@pytest.mark.parametrize(
    "image",
    [
        "localhost/berth:dev",
        "registry.example.com:5000/team/berth:1.2",
        "registry.example.com:5000/team/berth@sha256:" + "0" * 64,
    ],
)
def test_the_chart_runs_the_image_that_was_named(image: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values(image, built="abc")))
    text = Helm(4).template("--values", str(file), "--show-only=templates/operator/deployment.yaml")
    pod = yaml.safe_load(text)["spec"]["template"]
    assert pod["spec"]["containers"][0]["image"] == image
    assert pod["metadata"]["annotations"]["berth.dev/built"] == "abc"


def test_a_cluster_of_ones_own_needs_an_image_in_a_registry(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.touch()
    done = CliRunner().invoke(main, ["--kubeconfig", str(config)])
    assert done.exit_code == 2
    assert "name it with --image" in " ".join(done.output.split())


def test_a_local_cluster_takes_no_other_image() -> None:
    done = CliRunner().invoke(main, ["--image", "registry.invalid/berth:1"])
    assert done.exit_code == 2
