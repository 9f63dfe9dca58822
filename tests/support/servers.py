"""Models whose servers really run, and requests to them."""

import contextlib
import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from berth.cluster import resources
from localcluster.kubeapi import Api
from support.kube import Cluster, eventually
from support.models import Manifest, conditions, custom, model

BUSYBOX = "localhost/busybox:1"
QUICK_END: Manifest = {"drainTimeout": "0s", "gracePeriod": "1s"}
HTTPD = "mkdir -p /tmp/www && echo hello > /tmp/www/index.html && exec httpd -f -p 9000 -h /tmp/www"


def llama(name: str, gpus: int = 0, path: str = "tiny.gguf", **spec: Any) -> Manifest:
    """A Model on a real llama-server with the weights of the shared claim."""
    base: Manifest = {
        "backend": "llamacpp",
        "source": {"uri": f"pvc://quickstart-weights/{path}"},
        "gpus": {"count": gpus},
        "limits": {"cpu": "1", "memory": "512Mi"},
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "serving": {"contextLength": 256},
        "health": {"period": "1s", "timeout": "1s"},
        "shutdown": QUICK_END,
    }
    return model(name, **{**base, **spec})


def shell(name: str, script: str, serving: Manifest | None = None, **spec: Any) -> Manifest:
    """A Model of backend custom that runs a script in busybox."""
    base: Manifest = {
        "serving": {"image": BUSYBOX, **(serving or {})},
        "custom": {"command": ["sh", "-c", script], "port": 9000},
        "limits": {"cpu": "1", "memory": "64Mi"},
        "requests": {"cpu": "10m", "memory": "16Mi"},
        "health": {"period": "1s", "timeout": "1s", "startupTimeout": "30s"},
        "shutdown": QUICK_END,
    }
    return custom(name, **{**base, **spec})


def address(cluster: Cluster, namespace: str, name: str) -> str:
    """The URL of a Model's Service, by its address: the machine does not ask the cluster's DNS."""
    found = cluster.get("service", name, namespace)
    assert found is not None, f"no service {name}"
    return f"http://{found['spec']['clusterIP']}"


def ask(url: str) -> str:
    """The answer to one chat request."""
    body = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 8}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    reachable(url)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text: str = json.load(answer)["choices"][0]["message"]["content"]
    return text


def wait_for_reason(cluster: Cluster, namespace: str, name: str, reason: str, timeout: float = 40) -> str:
    """The message of Ready, once it has the reason."""

    def told() -> str:
        found = conditions(cluster, namespace, name).get("Ready", ("", "", ""))
        assert found[1] == reason, found
        return found[2]

    return eventually(told, timeout, f"{name} {reason}")


def reachable(url: str) -> None:
    """Wait for a first connection: a moment passes between a Pod's being ready and kube-proxy's sending it requests."""

    where = urllib.parse.urlsplit(url)

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((where.hostname, where.port or 80), timeout=5):
            return True
        return False

    eventually(answers, 20, f"a first connection to {url}")


class Requests:
    """Requests on new connections, one after the other, as long as the context is open."""

    def __init__(self, url: str) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._url, self._stop = url, threading.Event()
        self._thread = threading.Thread(target=self._run, name="requests")

    def __enter__(self) -> "Requests":
        reachable(self._url)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with urllib.request.urlopen(self._url, timeout=5) as answer:
                    answer.read()
                self.answered += 1
            except (urllib.error.URLError, OSError) as error:
                self.failed.append(f"{time.strftime('%H:%M:%S')} {error!r}")
            self._stop.wait(0.03)


class Phases:
    """The phases of a Model in the order in which a watch shows them."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self.seen: list[tuple[str, str]] = []
        """Phase and reason of Ready."""
        api = Api(cluster.kubeconfig)
        assert api.server.hostname is not None
        self._connection = http.client.HTTPSConnection(
            api.server.hostname, api.server.port, timeout=120, context=api.tls
        )
        self._path = f"{resources.MODELS.path(namespace)}?watch=true&fieldSelector=metadata.name={name}"
        self._thread = threading.Thread(target=self._read, name="phases")

    def __enter__(self) -> "Phases":
        self._connection.request("GET", self._path)
        self._answer = self._connection.getresponse()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._answer.close()
        self._connection.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            while line := self._answer.readline():
                status = json.loads(line)["object"]["status"]
                ready = next((c["reason"] for c in status.get("conditions", ()) if c["type"] == "Ready"), "")
                self.seen.append((status["phase"], ready))

    @property
    def phases(self) -> list[str]:
        """Without repetitions."""
        order = [phase for phase, _ in list(self.seen)]
        return [p for i, p in enumerate(order) if i == 0 or order[i - 1] != p]
