"""Addresses of a cluster, and the one link between it and the host.

A cluster has its own network namespace: ports, rules and bridges of two clusters never meet, and
kube-proxy's one table stays its own. The host gets one virtual cable and two routes, for Pods and for
Services, so that both are reached from the host by their own addresses. All addresses come from
198.18.0.0/15, the range for benchmarks, which no network routes and so no office network uses.
"""

import dataclasses
import ipaddress
import json
import os
import socket
import subprocess
from pathlib import Path

from localcluster import processes, state
from localcluster.errors import ClusterError

SLOTS = 16
_claims: dict[int, socket.socket] = {}


@dataclasses.dataclass(frozen=True)
class Ranges:
    """The addresses of the cluster in one slot: a sixteenth of 198.18.0.0/16 for Pods, as much for Services."""

    slot: int

    @property
    def link(self) -> str:
        """The network interface on the host."""
        return f"berth{self.slot}"

    @property
    def pods(self) -> str:
        """Every address that is no Service: the cable's two ends, Pods, Pods of simulated nodes."""
        return f"198.18.{self.slot * 16}.0/20"

    @property
    def services(self) -> str:
        """Addresses of Services."""
        return f"198.19.{self.slot * 16}.0/20"

    @property
    def host(self) -> str:
        """The host's end of the cable: how Pods reach a server on the host."""
        return f"198.18.{self.slot * 16}.1"

    @property
    def node(self) -> str:
        """The cluster's end of the cable: API server, kubelet, CoreDNS."""
        return f"198.18.{self.slot * 16}.2"

    @property
    def real_pods(self) -> tuple[str, str, str]:
        """The gateway of Pods of the real node, and the first and the last of their addresses."""
        third = self.slot * 16
        return f"198.18.{third + 1}.1", f"198.18.{third + 1}.10", f"198.18.{third + 7}.250"

    @property
    def simulated_pods(self) -> str:
        """Addresses that Pods of simulated nodes are given; nothing answers there."""
        return f"198.18.{self.slot * 16 + 8}.0/21"

    @property
    def api_service(self) -> str:
        """The address of the Service `kubernetes`."""
        return f"198.19.{self.slot * 16}.1"

    @property
    def dns(self) -> str:
        """The address of the cluster's DNS."""
        return f"198.19.{self.slot * 16}.10"

    @property
    def api_url(self) -> str:
        """Where the API server answers, for the host and for Pods."""
        return f"https://{self.node}:6443"


def free_slot(name: str) -> int:
    """Claim a slot that nothing on this machine uses. Call with the clusters' lock held."""
    taken = {s.slot for s in state.all_states() if s.name != name}
    used = _addresses_in_use()
    for slot in range(SLOTS):
        ranges = Ranges(slot)
        if slot in taken or Path("/sys/class/net", ranges.link).exists():
            continue
        mine = [ipaddress.ip_network(ranges.pods), ipaddress.ip_network(ranges.services)]
        if any(network.overlaps(other) for network in mine for other in used):
            continue
        if _reserve(slot):
            return slot
    raise ClusterError(f"all {SLOTS} parts of 198.18.0.0/15 are in use on this machine; see `ip route`")


def _addresses_in_use() -> list[ipaddress.IPv4Network]:
    found = []
    for route in json.loads(_ip("-json", "-4", "route", "show", "table", "all") or "[]"):
        if route["dst"] != "default":
            found.append(ipaddress.IPv4Network(route["dst"], strict=False))
    return found


def _reserve(slot: int) -> bool:
    """Claim a slot until its interface exists, also against other users' clusters.

    Names of abstract sockets belong to the network namespace, as interfaces do, and to the living process.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0berth-slot-{slot}")
    except OSError:
        claim.close()
        return False
    _claims[slot] = claim
    return True


def connect(ranges: Ranges, init: processes.Identity, root: Path) -> None:
    """Lay the cable between the host and the namespace of process 1, unless it is there."""
    inside = ("nsenter", f"--net=/proc/{init.pid}/ns/net", "ip")
    owner = _owner(ranges)
    if owner is None:
        # Made under another name first: under its own it never is without its owner.
        temporary = f"{ranges.link}-{os.getpid()}"
        _ip("link", "add", temporary, "type", "veth", "peer", "name", "eth0", "netns", str(init.pid))
        _ip("link", "set", temporary, "alias", str(root))
        _ip("link", "set", temporary, "name", ranges.link)
    elif owner != str(root):
        raise ClusterError(f"{ranges.link} is taken by {owner or 'somebody else'}; take this cluster down and up again")
    if ranges.slot in _claims:
        _claims.pop(ranges.slot).close()
    _run(*inside, "addr", "replace", f"{ranges.node}/30", "dev", "eth0")
    _run(*inside, "link", "set", "eth0", "up")
    _ip("addr", "replace", f"{ranges.host}/30", "dev", ranges.link)
    _ip("link", "set", ranges.link, "up")
    for destination in (ranges.pods, ranges.services):
        _ip("route", "replace", destination, "via", ranges.node, "src", ranges.host)


def disconnect(ranges: Ranges, root: Path) -> None:
    """Remove the cable if it is this cluster's. It goes with its namespace too, a moment later."""
    if _owner(ranges) == str(root):
        subprocess.run(("ip", "link", "delete", ranges.link), check=False, capture_output=True)


def _owner(ranges: Ranges) -> str | None:
    """Return whose the interface is: the cluster's folder is written on it."""
    try:
        return Path("/sys/class/net", ranges.link, "ifalias").read_text().strip()
    except FileNotFoundError:
        return None


def _ip(*args: str) -> str:
    return _run("ip", *args)


def _run(*args: str) -> str:
    done = subprocess.run(args, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"`{' '.join(args)}` failed: {done.stderr.strip()}")
    return done.stdout
