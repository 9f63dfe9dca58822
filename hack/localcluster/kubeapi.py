"""The few requests to an API server that bringing up a cluster takes, without a process for each.

Proxies of the environment are not used: a cluster of this machine is not behind one.
"""

import base64
import contextlib
import http.client
import json
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from localcluster.errors import ClusterError

Object = dict[str, Any]


class Api:
    """An API server, as a kubeconfig with a client certificate names it."""

    def __init__(self, kubeconfig: Path) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        user = content["users"][0]["user"]
        self.server = urlsplit(cluster["server"])
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.tls = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:  # the ssl module reads certificates from files only
            pair.write(base64.b64decode(user["client-certificate-data"]))
            pair.write(base64.b64decode(user["client-key-data"]))
            pair.flush()
            self.tls.load_cert_chain(pair.name)

    def request(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """Return status and body of the answer; 0 and nothing where nobody answered."""
        assert self.server.hostname is not None
        connection = http.client.HTTPSConnection(
            self.server.hostname, self.server.port or 443, timeout=10, context=self.tls
        )
        text = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, text, {"Content-Type": content_type})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def ready(self) -> bool:
        """Tell whether the API server says of itself that it is ready."""
        return self.request("GET", "/readyz")[0] == 200

    def get(self, path: str) -> Object | None:
        """Return an object; None when it is not there, or nobody answers."""
        status, body = self.request("GET", path)
        return dict(json.loads(body)) if status == 200 else None

    def apply(self, path: str, body: Object) -> None:
        """Make an object be so (server-side apply), with patience for a server that only just began."""
        deadline = time.monotonic() + 10
        url = f"{path}?fieldManager=localcluster&force=true"
        while True:
            status, answer = self.request("PATCH", url, body, "application/apply-patch+yaml")
            if status in (200, 201):
                return
            if time.monotonic() > deadline:
                raise ClusterError(f"the API server refuses {path} ({status}): {_message(answer)}")
            time.sleep(0.05)

    def merge(self, path: str, body: Object) -> None:
        """Change some fields of an object."""
        status, answer = self.request("PATCH", path, body, "application/merge-patch+json")
        if status != 200:
            raise ClusterError(f"the API server refuses to change {path} ({status}): {_message(answer)}")


def _message(answer: bytes) -> str:
    with contextlib.suppress(ValueError):
        return str(json.loads(answer).get("message", ""))
    return answer[:200].decode(errors="replace")
