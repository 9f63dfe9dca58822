"""What tests with real servers share: a namespace with weights, an operator, and requests from the machine itself."""

import uuid
from collections.abc import Iterator

import pytest

from support.kube import Cluster, eventually
from support.models import Served
from support.operator_process import OperatorProcess, grant
from support.weights import put_weights

LLAMA_IMAGE = "localhost/llama-server:11669"
BERTH_IMAGE = "localhost/berth:dev"


@pytest.fixture(scope="session")
def served(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A restricted namespace whose claim `quickstart-weights` has tiny.gguf, with an operator of little patience.

    Downloads run in the image that this checkout makes.
    """
    from localcluster import api, images

    api.load_image(cluster.name, images.berth())
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("served")
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    eventually(lambda: cluster.get("serviceaccount", "default", namespace), 30, "the default ServiceAccount")
    grant(cluster, namespace)
    put_weights(cluster, namespace, folder)
    operator = OperatorProcess(
        cluster,
        namespace,
        folder,
        *("--image", f"llamacpp={LLAMA_IMAGE}", "--provisioner-image", BERTH_IMAGE),
        *("--ephemeral-max", "2Mi", "--download-retry", "2"),
        *("--load-interval", "1", "--load-settle", "3"),
        *("--crash-budget", "2", "--pod-retry", "2", "--image-pull-patience", "5", "--config-patience", "60"),
        *("--refusal-interval", "2"),
    )
    try:
        yield Served(cluster, namespace, operator.start())
    finally:
        operator.stop()
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def name(served: Served) -> Iterator[str]:
    """A name for the Model of a test; the Model is gone, with its Pods, when the test is over."""
    chosen = f"m-{uuid.uuid4().hex[:8]}"
    yield chosen
    where, namespace = served.cluster, served.namespace
    where.kubectl("-n", namespace, "delete", "model", chosen, "--ignore-not-found", "--wait=false")
    selector = f"berth.dev/model={chosen}"
    where.kubectl("-n", namespace, "delete", "pod", "-l", selector, "--grace-period=1", "--wait=false")
