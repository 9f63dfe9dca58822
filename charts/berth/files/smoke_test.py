"""What `helm test` runs in the cluster: the operator answers, one of its Pods leads, and Models are taken."""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MODEL = {
    "apiVersion": "berth.dev/v1alpha1",
    "kind": "Model",
    "metadata": {"generateName": "helm-test-"},
    "spec": {
        "backend": "custom",
        "serving": {"image": "localhost/none"},
        "custom": {"command": ["none"], "port": 8000},
        "limits": {"memory": "64Mi"},
        "replicas": 0,
    },
}


def kubernetes(method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    """Status and answer of the Kubernetes API to one request with the rights of this Pod."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    request = urllib.request.Request(
        f"https://{f'[{host}]' if ':' in host else host}:{port}{path}",
        method=method,
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": "application/json"},
    )
    tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=10, context=tls) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ask(service: str, path: str) -> str:
    """What a Pod of the operator says, asked the way that a scraper goes: by the Service, past the NetworkPolicy."""
    with urllib.request.urlopen(f"http://{service}:8080{path}", timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def operator_leads(service: str) -> None:
    """The operator is Ready, and one of its Pods leads: each request may reach another one."""
    assert ask(service, "/readyz") == "ok\n", "the operator is not ready"
    leads = any("\nberth_leading 1.0" in ask(service, "/metrics") for _ in range(20))
    assert leads, "none of the operator's Pods leads"


def models_are_taken(namespace: str) -> None:
    """The API server takes a Model and refuses one that is wrong, with a sentence. Nothing is stored."""
    path = f"/apis/berth.dev/v1alpha1/namespaces/{namespace}/models?dryRun=All&fieldValidation=Strict"
    status, taken = kubernetes("POST", path, MODEL)
    assert status == 201, f"the API server takes no Model: {taken.get('message')}"
    assert taken["status"]["observedGeneration"] == -1, f"a new Model has the status {taken['status']}"
    wrong = {**MODEL, "spec": {**MODEL["spec"], "backend": "none"}}  # type: ignore[dict-item]
    status, refused = kubernetes("POST", path, wrong)
    assert status == 422, f"a Model with the backend `none` is not refused: {status} {refused.get('message')}"


def main(service: str, namespace: str) -> None:
    """Try everything until it holds or a minute is over."""
    deadline = time.monotonic() + 60
    while True:
        try:
            operator_leads(service)
            models_are_taken(namespace)
        except (AssertionError, OSError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"not well: {error}")
            time.sleep(1)
        else:
            print("the operator answers, one of its Pods leads, and the API server takes Models")
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
