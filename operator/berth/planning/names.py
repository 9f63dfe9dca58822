"""The labels, annotations and names that Berth uses on the objects it makes: one place for all of them."""

FIELD_MANAGER = "berth"
INSTANCE_LABEL = "app.kubernetes.io/instance"
"""What an object is an instance of. Argo CD can be told to take it for the name of an application."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "berth"
MANAGED_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"

MODEL_LABEL = "berth.dev/model"
"""Name of the Model that an object belongs to."""
CACHE_LABEL = "berth.dev/cache"
"""Name of the ModelCache whose volume a Pod uses, or that an object belongs to."""
ARTIFACT_LABEL = "berth.dev/artifact"
"""Name of the artifact that a Job is about."""
COMPONENT_LABEL = "app.kubernetes.io/component"
SERVER_COMPONENT = "server"
PROVISIONER_COMPONENT = "provisioner"

APPLIED_ANNOTATION = "berth.dev/applied"
"""Hash of the manifest as it was applied last."""
TEMPLATE_INPUTS_ANNOTATION = "berth.dev/template-inputs"
"""Hash of what the Pod template was rendered from; while it stays, a new version of Berth keeps the template."""
WEIGHTS_ANNOTATION = "berth.dev/weights"
"""Where the weights were when the Pod template was rendered, in JSON; on Deployments whose weights are downloaded."""
POD_TEMPLATE_ANNOTATION = "berth.dev/pod-template"
"""The Pod template as it was rendered, in JSON, so that it can be put back without being rendered anew."""
CLOSED_SINCE_ANNOTATION = "berth.dev/closed-since"
"""On Services that send nothing anywhere: since when."""
CAPACITY_ANNOTATION = "berth.dev/capacity"
"""On Deployments: what the capacity planner has to remember of the Model. On Pods: the nodes that they were told."""
DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
"""On Pods: by this a ReplicaSet chooses which of them ends when there are too many."""
LEAVES_FIRST = "-1000"
"""The cost of a Pod that is to end before others."""
CAPACITY_GATE = "berth.dev/capacity"
"""Scheduling gate of server Pods with GPUs: the scheduler knows neither their memory nor how many are loading."""
EXCLUDED_NODES_ANNOTATION = "berth.dev/excluded-nodes"
"""On Deployments: hosts that its Pods avoid, one after the other with commas."""
TEMPLATE_HASH_LABEL = "berth.dev/template-hash"
"""On Pods: hash of the Pod template they were made from."""

SERVER_CONTAINER = "server"
SERVER_PORT_NAME = "http"
SERVICE_PORT = 80
MODELS_VOLUME = "models"
MODELS_PATH = "/models"
PROVISIONER_CONTAINER = "provision"
PROGRESS_PORT_NAME = "progress"
PROGRESS_PORT = 8081
"""Where a download tells how far it is. Not 8080, which a server beside it may listen on."""
DRAIN_CONTAINER = "drain"
DRAIN_PORT = 61999
"""Where the kubelet asks the drain sidecar. Above every range that Linux takes ports from, and that IANA gives out."""
LINKED_FILE = "model.gguf"
"""The link to the file to load, where a Pod is rendered before anybody knows the name of that file."""


def server_selector(model_name: str) -> dict[str, str]:
    """The labels that find the server Pods of a Model. Nothing in them ever changes: selectors are immutable."""
    return {MODEL_LABEL: model_name, COMPONENT_LABEL: SERVER_COMPONENT}


CLOSED_LABEL = "berth.dev/closed"
"""On no Pod: a Service whose selector asks for it sends nothing anywhere."""


def child_labels(model_name: str, backend: str) -> dict[str, str]:
    """The labels of everything made for a Model. None of the Model's own: GitOps tools would claim the child."""
    return {
        "app.kubernetes.io/name": str(backend),
        INSTANCE_LABEL: model_name,
        "app.kubernetes.io/part-of": "berth",
        MANAGED_BY_LABEL: MANAGED_BY,
        **server_selector(model_name),
    }


def cache_labels(cache_name: str) -> dict[str, str]:
    """The labels of everything made for a ModelCache."""
    return {
        "app.kubernetes.io/name": "berth-provisioner",
        INSTANCE_LABEL: cache_name,
        "app.kubernetes.io/part-of": "berth",
        MANAGED_BY_LABEL: MANAGED_BY,
        CACHE_LABEL: cache_name,
        COMPONENT_LABEL: PROVISIONER_COMPONENT,
    }


def cache_object(cache_name: str) -> str:
    """Name of the objects that a ModelCache consists of: its claim, where Berth makes it, and its NetworkPolicy."""
    return f"modelcache-{cache_name}"
