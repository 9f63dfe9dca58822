"""Berth on a cluster of the benchmark's own: its CRDs and rights, and the operator as a process beside the cluster."""

import time
from pathlib import Path

import yaml

import walkthrough

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "berth-system"
ACCOUNT = "berth-operator"


def install(kubectl: walkthrough.Kubectl) -> None:
    """The CRDs, the operator's identity and its rights; no operator."""
    kubectl("apply", "-f", str(ROOT / "crds"))
    _wait_for_models(kubectl)
    kubectl("apply", "-f", str(ROOT / "deploy/rbac.yaml"))
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
    group = "rbac.authorization.k8s.io"

    def binding(role: str) -> dict[str, object]:
        return {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [subject],
        }

    documents = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}},
        *map(binding, ("berth-operator", "berth-operator-nodes", "berth-operator-lease")),
    ]
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))


def _wait_for_models(kubectl: walkthrough.Kubectl) -> None:
    """`kubectl wait` fails on a CRD just made: wait until the API server serves it."""
    deadline = time.monotonic() + 30
    while "models.berth.dev" not in kubectl("api-resources", "--api-group=berth.dev", "--output=name", check=False):
        if time.monotonic() > deadline:
            raise RuntimeError("the API server did not serve Models within 30 s")
        time.sleep(0.2)


def operator_kubeconfig(kubectl: walkthrough.Kubectl, admin: Path, folder: Path) -> Path:
    """A kubeconfig with the operator's own token: it has the rights of its ClusterRoles and no others."""
    token = kubectl("-n", NAMESPACE, "create", "token", ACCOUNT, "--duration=8h").strip()
    cluster = yaml.safe_load(admin.read_text())["clusters"][0]
    path = folder / "operator.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "users": [{"name": "operator", "user": {"token": token}}],
                "contexts": [{"name": "operator", "context": {"cluster": cluster["name"], "user": "operator"}}],
                "current-context": "operator",
            }
        )
    )
    return path
