"""`berth drain`: answers the kubelet's preStop hook once the server beside it is idle, and ends at SIGTERM."""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

from berth.drain.draining import Drain, Times
from berth.drain.endpoint import Endpoint
from berth.drain.server import Metrics, Server, Unload

log = logging.getLogger("berth.drain")


def parser() -> argparse.ArgumentParser:
    """What the sidecar is told on its command line; all of it is rendered by Berth."""
    parser = argparse.ArgumentParser(prog="berth drain", description="Holds SIGTERM back until a server is idle.")
    parser.add_argument("--port", type=int, required=True, help="Where the kubelet asks.")
    parser.add_argument(
        "--host", default=os.environ.get("POD_IP") or "127.0.0.1", help="Address of the server (POD_IP otherwise)."
    )
    parser.add_argument("--server-port", type=int, required=True, help="Port of the server.")
    parser.add_argument("--metrics", metavar="PATH", help="Path of its metrics; without it the load is unknown.")
    parser.add_argument("--running", metavar="NAME", help="Gauge of requests that are worked on.")
    parser.add_argument("--waiting", metavar="NAME", default="", help="Gauge of requests that wait.")
    parser.add_argument("--worked", metavar="NAME", default="", help="Counter that grows with every request.")
    parser.add_argument("--loading-status", type=int, help="Status of the answer while weights are loaded.")
    parser.add_argument("--key-env", metavar="NAME", default="", help="Environment variable with the API key.")
    parser.add_argument("--routing-time", type=float, default=5.0, help="Seconds until nobody sends requests here.")
    parser.add_argument("--drain-timeout", type=float, default=60.0, help="Longest time for running requests.")
    parser.add_argument("--grace-period", type=float, default=30.0, help="Time for the server's end after that.")
    parser.add_argument("--unload-method", default="POST", help="Method of the request that frees GPU memory.")
    parser.add_argument("--unload-path", default="", help="Path of that request; none when omitted.")
    parser.add_argument("--unload-body", default="", help="Its body, JSON.")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM, which the kubelet sends when the server has ended."""
    options = parser().parse_args(arguments)
    if options.metrics and not options.running:
        parser().error("--metrics needs --running")
    ended = threading.Event()
    if threading.current_thread() is threading.main_thread():
        # The first process of a container has no default for SIGTERM: without a handler it would be ignored.
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    metrics = None
    if options.metrics:
        metrics = Metrics(options.metrics, options.running, options.waiting, options.worked, options.loading_status)
    unload = Unload(options.unload_method, options.unload_path, options.unload_body) if options.unload_path else None
    # A server takes several keys, separated by commas; any of them will do.
    key = os.environ.get(options.key_env, "").split(",")[0].strip() if options.key_env else ""
    times = Times(options.routing_time, options.drain_timeout, options.grace_period)
    drain = Drain(Server(options.host, options.server_port, key), metrics, unload, times)
    with Endpoint(options.port, drain) as endpoint:
        log.info("waits on port %d until the server is to end", endpoint.port)
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
