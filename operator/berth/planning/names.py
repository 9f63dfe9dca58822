"""The labels, annotations and names that Berth uses on the objects it makes: one place for all of them."""

FIELD_MANAGER = "berth"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "berth"
MANAGED_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"

MODEL_LABEL = "berth.dev/model"
"""Name of the Model that an object belongs to."""
COMPONENT_LABEL = "app.kubernetes.io/component"
SERVER_COMPONENT = "server"

APPLIED_ANNOTATION = "berth.dev/applied"
"""Hash of the manifest as it was applied last."""
TEMPLATE_INPUTS_ANNOTATION = "berth.dev/template-inputs"
"""Hash of what the Pod template was rendered from; while it stays, a new version of Berth keeps the template."""
POD_TEMPLATE_ANNOTATION = "berth.dev/pod-template"
"""The Pod template as it was rendered, in JSON, so that it can be put back without being rendered anew."""
TEMPLATE_HASH_LABEL = "berth.dev/template-hash"
"""On Pods: hash of the Pod template they were made from."""

SERVER_CONTAINER = "server"
SERVER_PORT_NAME = "http"
SERVICE_PORT = 80
MODELS_VOLUME = "models"
MODELS_PATH = "/models"


def server_selector(model_name: str) -> dict[str, str]:
    """The labels that find the server Pods of a Model. Nothing in them ever changes: selectors are immutable."""
    return {MODEL_LABEL: model_name, COMPONENT_LABEL: SERVER_COMPONENT}


CLOSED_LABEL = "berth.dev/closed"
"""On no Pod: a Service whose selector asks for it sends nothing anywhere."""


def child_labels(model_name: str, backend: str) -> dict[str, str]:
    """The labels of everything made for a Model. None of the Model's own: GitOps tools would claim the child."""
    return {
        "app.kubernetes.io/name": str(backend),
        "app.kubernetes.io/instance": model_name,
        "app.kubernetes.io/part-of": "berth",
        MANAGED_BY_LABEL: MANAGED_BY,
        **server_selector(model_name),
    }
