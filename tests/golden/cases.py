"""Models, and the manifests that they are expected to become: `<case>.model.yaml` beside `<case>.yaml`.

BERTH_UPDATE_GOLDEN=1 makes tests/unit/planning/test_children_golden.py write the manifests anew.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from berth.api.model import ModelSpec, RolloutStrategy
from berth.planning.artifacts import artifact_of
from berth.planning.children import ModelIdentity, desired_children
from berth.planning.pod_template import render_pod_template, template_inputs
from berth.planning.render_settings import Peer, RenderSettings
from berth.planning.weights import Stored

FOLDER = Path(__file__).parent
NAMESPACE = "models"
UID = "00000000-0000-4000-8000-000000000000"
SETTINGS = RenderSettings(scraper=Peer("monitoring", {"app.kubernetes.io/name": "prometheus"}))


PLANNED = replace(SETTINGS, gated=True)
"""Of an operator that plans GPU capacity: for the cases whose names end with `-planned`."""


def all_cases() -> list[str]:
    """The names of all cases."""
    return sorted(path.name.removesuffix(".model.yaml") for path in FOLDER.glob("*.model.yaml"))


def model(case: str) -> dict[str, Any]:
    """The Model of a case, as a person would write it."""
    return _documents(case)[0]


def stored(case: str) -> Stored | None:
    """Where a ModelCache has the weights of a case: a second document, where there is one."""
    documents = _documents(case)
    return Stored(**documents[1]) if len(documents) > 1 else None


def _documents(case: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / f"{case}.model.yaml").read_text()))


def manifests_path(case: str) -> Path:
    """The file with the expected manifests of a case."""
    return FOLDER / f"{case}.yaml"


def render(
    model: dict[str, Any], *, namespace: str = NAMESPACE, uid: str = UID, stored: Stored | None = None
) -> list[dict[str, Any]]:
    """What Berth makes of a Model whose weights, if a ModelCache has them, are at `stored`."""
    spec = ModelSpec.model_validate(model["spec"])
    name = model["metadata"]["name"]
    settings = PLANNED if name.endswith("-planned") else SETTINGS
    return desired_children(
        ModelIdentity(namespace, name, uid),
        spec,
        settings,
        render_pod_template(name, namespace, spec, settings, stored),
        replicas=spec.replicas,
        strategy=RolloutStrategy.IN_PLACE if spec.gpus.count else RolloutStrategy.SURGE,
        inputs=template_inputs(spec, stored),
        downloads=stored is None and artifact_of(model["spec"].get("source")) is not None,
    )
