"""hack/demo: what the chart is told of an image that somebody names."""

from pathlib import Path

import pytest
import yaml

from support.chart import Helm
from walkthrough import values


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
