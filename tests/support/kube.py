"""kubectl and waiting, for tests on a real API server."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import yaml

from berth.cluster import resources
from localcluster.kubeapi import Api

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def eventually(check: Callable[[], T], timeout: float = 60.0, what: str = "") -> T:
    """The first truthy answer of `check`, whose AssertionErrors count as not yet. Fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            answer = check()
            if answer:
                return answer
            last = answer
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what or check}; last seen: {last}")
        time.sleep(0.05)


_RESOURCES = {name: resource for resource in resources.ALL for name in (resource.plural, resource.kind.lower())}
_RESOURCES["pdb"] = resources.POD_DISRUPTION_BUDGETS


@cache
def _api(kubeconfig: Path) -> Api | None:
    """Requests without a process for each: a poll must not take the processor from what it waits for."""
    try:
        return Api(kubeconfig)
    except KeyError:
        return None  # a login that only kubectl knows


@dataclass(frozen=True)
class Cluster:
    """A cluster to test on."""

    name: str
    kubeconfig: Path
    kubectl_path: Path

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl; with `check`, a failure fails the test with its output."""
        done = subprocess.run(
            [str(self.kubectl_path), "--kubeconfig", str(self.kubeconfig), *args],
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr or done.stdout}")
        return done

    def apply(self, *manifests: dict[str, Any] | str, namespace: str | None = None) -> None:
        """Apply manifests given as dicts or YAML."""
        text = "\n---\n".join(m if isinstance(m, str) else yaml.safe_dump(m) for m in manifests)
        self.kubectl(*(["-n", namespace] if namespace else []), "apply", "-f", "-", input=text)

    def get(self, what: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """The object, or None when there is none. Without a namespace: of a kind that has none."""
        if (resource := _RESOURCES.get(what)) is not None and (api := _api(self.kubeconfig)) is not None:
            status, body = api.request("GET", resource.path(namespace or None, name))
            if status in (200, 404):
                return json.loads(body) if status == 200 else None
        done = self.kubectl("-n", namespace, "get", what, name, "-o", "json", "--ignore-not-found")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def list(self, what: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a kind."""
        if (resource := _RESOURCES.get(what)) is not None and (api := _api(self.kubeconfig)) is not None:
            status, body = api.request("GET", f"{resource.path(namespace)}?labelSelector={quote(selector)}")
            if status == 200:
                found: list[dict[str, Any]] = json.loads(body)["items"]
                return found
        args = ["-n", namespace, "get", what, "-o", "json", *(["-l", selector] if selector else [])]
        items: list[dict[str, Any]] = json.loads(self.kubectl(*args).stdout)["items"]
        return items

    def phase(self, name: str, namespace: str) -> str:
        """The phase of a Model."""
        model = self.get("model", name, namespace)
        assert model is not None, f"no model {name}"
        return str(model["status"]["phase"])

    def condition(self, name: str, namespace: str, kind: str) -> dict[str, Any] | None:
        """A condition of a Model."""
        model = self.get("model", name, namespace)
        assert model is not None, f"no model {name}"
        return next((c for c in model["status"].get("conditions", ()) if c["type"] == kind), None)

    def token_kubeconfig(self, namespace: str, account: str, path: Path) -> Path:
        """A kubeconfig with nothing but a ServiceAccount's token."""
        token = self.kubectl("-n", namespace, "create", "token", account, "--duration=24h").stdout.strip()
        admin = yaml.safe_load(self.kubeconfig.read_text())
        cluster = admin["clusters"][0]
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [cluster],
                    "users": [{"name": account, "user": {"token": token}}],
                    "contexts": [
                        {
                            "name": account,
                            "context": {"cluster": cluster["name"], "user": account, "namespace": namespace},
                        }
                    ],
                    "current-context": account,
                }
            )
        )
        os.chmod(path, 0o600)
        return path


def install_crds(where: Cluster) -> None:
    """Berth's CRDs, without Helm."""
    where.kubectl("apply", "-f", str(ROOT / "crds"))
    # `kubectl wait` gives up at once on a CRD that has no conditions yet.
    established = ("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
    eventually(lambda: where.kubectl(*established), 60, "the CRDs")
