"""A stop that waits for nobody: the annotation `berth.dev/force-stop` on a Model that is to have no server."""

from collections.abc import Iterable, Mapping

from berth.planning import names
from berth.planning.drain_pod import SKIP_PATH
from berth.planning.plan import Hurry
from berth.planning.pods import Pod

FORCE_STOP_ANNOTATION = "berth.dev/force-stop"
"""Any value has requests cut whenever the Model stops. Rollouts still drain."""
FORCED_GRACE_SECONDS = 1
"""For the hook; the kubelet gives two more between SIGTERM and SIGKILL."""


def is_forced(annotations: Mapping[str, str], *, stops: bool) -> bool:
    """Whether servers are to end at once; `stops` says that the Model is to have none."""
    return stops and FORCE_STOP_ANNOTATION in annotations


def hurries(pods: Iterable[Pod], drain_port: int) -> tuple[Hurry, ...]:
    """Every Pod that has more time than that.

    They are deleted before the Deployment is emptied: a kubelet that has begun with a longer time keeps to it. A Pod
    that the ReplicaSet puts in their place ends before its server has begun.
    """
    slow = (pod for pod in pods if pod.grace is None or pod.grace > FORCED_GRACE_SECONDS)
    return tuple(
        Hurry(pod.namespace, pod.name, pod.uid, FORCED_GRACE_SECONDS, _order(pod, drain_port))
        for pod in slow
        if pod.living or pod.deleting
    )


def _order(pod: Pod, port: int) -> str:
    """Where the sidecar that holds SIGTERM back takes orders. What the server does at SIGTERM is its own affair."""
    sidecar = any(one.initial and one.name == names.DRAIN_CONTAINER for one in pod.containers)
    host = f"[{pod.address}]" if ":" in pod.address else pod.address
    return f"http://{host}:{port}{SKIP_PATH}" if sidecar and pod.deleting and pod.address else ""
