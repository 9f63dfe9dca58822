"""Models and ModelCaches in every phase, applied as GitOps tools do it, with all that these tools put on an object."""

import uuid
from collections.abc import Iterator

import pytest

from support.gitops import WAYS, Way, tracked
from support.kube import Cluster, eventually
from support.model_phases import Stage, every_phase
from support.models import Manifest
from support.operator_process import OperatorProcess, grant


@pytest.fixture(scope="session", params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """How manifests are applied."""
    found: Way = request.param
    return found


@pytest.fixture(scope="session")
def staged(control_plane: Cluster, way: Way, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A namespace where every phase has been reached; the operator goes on."""
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", namespace)
    grant(control_plane, namespace)
    eventually(lambda: control_plane.get("serviceaccount", "default", namespace), 30, "the default ServiceAccount")
    patience = ("--image-pull-patience", "1", "--refusal-interval", "1", "--crash-budget", "2")
    operator = OperatorProcess(control_plane, namespace, tmp_path_factory.mktemp("staged"), *patience)

    def apply(manifest: Manifest) -> None:
        way.kubectl(control_plane, namespace, "apply", tracked(manifest))

    try:
        operator.start()
        stage = Stage(control_plane, namespace, apply)
        every_phase(stage)
        yield stage
    finally:
        operator.stop()
        control_plane.kubectl("delete", "namespace", namespace, "--wait=false")
