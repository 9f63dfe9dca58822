"""A stand-in for the Hugging Face hub, for demonstrations without a network: one repository, one file, and slow.

It speaks as much of the hub's protocol as a download asks for. It runs as it is, in a container that has Python:
standin_hub.py REPOSITORY FILE BYTES_PER_SECOND [PORT]
"""

import hashlib
import json
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef" * 2 + "01234567"
_BLOCK = 16 * 1024


class Hub(BaseHTTPRequestHandler):
    """Answers for one repository."""

    protocol_version = "HTTP/1.1"
    repository: str
    file: Path
    rate: int

    def do_GET(self) -> None:  # the name that http.server calls
        """The listing, or the file."""
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/models/{self.repository}"):
            self._answer(200, json.dumps(self._listing()).encode(), {"Content-Type": "application/json"})
        elif path == f"/{self.repository}/resolve/{COMMIT}/{self.file.name}":
            self._send(self.file.read_bytes())
        else:
            self._answer(404, b"nothing here", {"X-Error-Code": "EntryNotFound"})

    def _listing(self) -> dict[str, object]:
        content = self.file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        sibling = {
            "rfilename": self.file.name,
            "size": len(content),
            "blobId": "0" * 40,
            "lfs": {"sha256": digest, "size": len(content), "pointerSize": 134},
        }
        return {"id": self.repository, "sha": COMMIT, "siblings": [sibling], "cardData": {"license": "apache-2.0"}}

    def _send(self, content: bytes) -> None:
        start, end = 0, len(content)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        headers = {"Content-Type": "application/octet-stream"}
        if found:
            start, end = int(found[1]), min(int(found[2] or end - 1) + 1, end)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._answer(206 if found else 200, content[start:end], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        for at in range(0, len(body), _BLOCK):
            self.wfile.write(body[at : at + _BLOCK])
            self.wfile.flush()
            time.sleep(min(_BLOCK, len(body)) / self.rate)


def main() -> None:
    """Serve until ended."""
    Hub.repository, Hub.file, Hub.rate = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    port = int(sys.argv[4]) if len(sys.argv) > 4 else 8080
    ThreadingHTTPServer(("", port), Hub).serve_forever()


if __name__ == "__main__":
    main()
