"""A claim with the weights of a tiny model, for servers that really run."""

from pathlib import Path

import yaml

import tinymodel
from support.kube import Cluster
from support.operator_process import ROOT

WEIGHTS = "quickstart-weights"


def put_weights(cluster: Cluster, namespace: str, folder: Path) -> None:
    """A tiny model in a ConfigMap, which a Job copies onto the claim."""
    weights = folder / "tiny.gguf"
    tinymodel.write(weights)
    cluster.kubectl("-n", namespace, "create", "configmap", WEIGHTS, f"--from-file={weights}")
    documents = list(yaml.safe_load_all((ROOT / "tests/e2e/weights-on-a-claim.yaml").read_text()))
    for container in documents[1]["spec"]["template"]["spec"]["containers"]:
        container["image"] = "localhost/busybox:1"
    cluster.apply(*documents, namespace=namespace)
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Complete", f"job/{WEIGHTS}", "--timeout=60s")
    cluster.kubectl("-n", namespace, "delete", "job", WEIGHTS)
