"""The operator as a process beside the cluster, with exactly the rights of its ClusterRole."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import IO

from prometheus_client.parser import text_string_to_metric_families

from support.kube import Cluster, eventually

ROOT = Path(__file__).resolve().parents[2]


def grant(cluster: Cluster, namespace: str, *, everywhere: bool = False) -> None:
    """A ServiceAccount in `namespace` that has the operator's rights there and nowhere else, or `everywhere`."""
    cluster.apply((ROOT / "deploy/rbac.yaml").read_text())
    subjects = [{"kind": "ServiceAccount", "name": "berth-operator", "namespace": namespace}]
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "berth-operator", "namespace": namespace},
        },
        *(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": role, "namespace": namespace},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": subjects,
            }
            for role in ("berth-operator", "berth-operator-lease")
        ),
    )
    bindings = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{role}-{namespace}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": subjects,
        }
        for role in ("berth-operator-nodes", *(["berth-operator"] if everywhere else []))
    ]
    cluster.apply(*bindings)


class OperatorProcess:
    """`berth operator` for one namespace, or `everywhere`. Its log is kept, and shown when it does not start."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        folder: Path,
        *flags: str,
        kubeconfig: Path | None = None,
        everywhere: bool = False,
    ) -> None:
        self._everywhere = everywhere
        self._cluster, self._namespace, self._folder, self._flags = cluster, namespace, folder, flags
        self.log = folder / f"operator-{time.monotonic_ns()}.log"
        self._kubeconfig = kubeconfig or cluster.token_kubeconfig(
            namespace, "berth-operator", folder / "operator.kubeconfig"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._file: IO[bytes] | None = None
        self.port = 0

    def start(self, *, wait_until_leading: bool = True) -> "OperatorProcess":
        self._file = self.log.open("wb")
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "berth", "operator", "--kubeconfig", str(self._kubeconfig),
                *([] if self._everywhere else ["--namespace", self._namespace]), "--lease-namespace", self._namespace,
                "--host", "127.0.0.1", "--port", "0", "--log-format", "text", *self._flags,
            ],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
        )  # fmt: skip
        self.port = int(eventually(self._find_port, 30, f"the port in {self.log}"))
        if wait_until_leading:
            eventually(lambda: self.metric("berth_leading") == 1.0, 45, "the operator leads")
        return self

    def _find_port(self) -> str:
        assert self._process is not None
        text = self.log.read_text()
        assert self._process.poll() is None, f"the operator ended: {text}"
        found = re.search(r"listening on \S+:(\d+)", text)
        return found.group(1) if found else ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have the labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def writes(self) -> float:
        """Writes so far, those to Leases apart."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "berth_kubernetes_requests_total"
            and sample.labels["verb"] not in ("get", "list", "watch")
            and sample.labels["resource"] != "leases"
        )

    def ended(self) -> bool:
        """Whether the process ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._close()

    def stop(self) -> None:
        """SIGTERM, and a clean end within 15 s."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
                raise AssertionError(f"the operator did not stop within 15 s: {self.log.read_text()[-2000:]}") from None
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
