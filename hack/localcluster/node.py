"""The real node: containerd, kubelet and kube-proxy, and how each is told to live in a folder of its own."""

import contextlib
import functools
import json
import shutil
from pathlib import Path

import yaml

from localcluster import processes
from localcluster.errors import ClusterError
from localcluster.network import Ranges
from localcluster.pki import NODE, write_kubeconfig
from localcluster.state import Paths, State, write

COMPONENTS = ("containerd", "kubelet", "kube-proxy")
PAUSE_IMAGE = "localhost/pause:1"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CGROUPS = Path("/sys/fs/cgroup")


def write_configuration(where: Paths, state: State, ranges: Ranges) -> None:
    """Write the files that the commands below name."""
    for name in ("kubelet", "proxy"):
        write_kubeconfig(where.conf / f"{name}.kubeconfig", where.pki, name, ranges.api_url, "local")
    write(where.conf / "containerd.toml", _containerd(where))
    network = where.conf / "cni"
    network.mkdir(exist_ok=True)
    write(network / "10-berth.conflist", json.dumps(_pod_network(where, ranges), indent=1))
    write(where.conf / "resolv.conf", f"nameserver {ranges.dns}\n")
    write(where.conf / "kubelet.yaml", yaml.safe_dump(_kubelet(where, state, ranges)))
    write(where.conf / "kube-proxy.yaml", yaml.safe_dump(_kube_proxy(where, ranges)))


def commands(where: Paths, ranges: Ranges, binaries: dict[str, Path]) -> dict[str, list[str]]:
    """Return the command line of each component, in the order of starting."""
    return {
        "containerd": [
            shutil.which("containerd", path=SYSTEM_PATH) or "containerd",
            "--config",
            f"{where.conf}/containerd.toml",
        ],
        "kubelet": [
            str(binaries["kubelet"]),
            f"--config={where.conf}/kubelet.yaml",
            f"--kubeconfig={where.conf}/kubelet.kubeconfig",
            f"--hostname-override={NODE}",
            f"--node-ip={ranges.node}",
            # Below the cluster's own /var/lib, which is in the cluster's folder: see cluster-init.
            "--root-dir=/var/lib/kubelet",
            f"--cert-dir={where.pki}",
        ],
        "kube-proxy": [
            str(binaries["kube-proxy"]),
            f"--config={where.conf}/kube-proxy.yaml",
            f"--hostname-override={NODE}",
        ],
    }


def _containerd(where: Paths) -> str:
    return f"""\
version = 2
root = "{where.root}/containerd"
state = "/run/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{where.containerd_socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{where.root}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Root of a container or a virtual machine may not lower its score, and runc fails when it has to.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_folder()}"
    conf_dir = "{where.conf}/cni"
"""


def cni_folder() -> Path:
    """Return where the network plugins are: Debian's folder, or everybody else's."""
    return next((p for p in (Path("/usr/lib/cni"), Path("/opt/cni/bin")) if (p / "ptp").exists()), Path("/usr/lib/cni"))


def _pod_network(where: Paths, ranges: Ranges) -> dict[str, object]:
    """Give each Pod a cable of its own to the node: every packet is routed, so Services need no bridge module."""
    gateway, first, last = ranges.real_pods
    addresses = {"subnet": ranges.pods, "rangeStart": first, "rangeEnd": last, "gateway": gateway}
    return {
        "cniVersion": "1.0.0",
        "name": "berth",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(where.root / "addresses"),
                    "ranges": [[addresses]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _kubelet(where: Paths, state: State, ranges: Ranges) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup(state.name)}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{where.containerd_socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{where.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{where.pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{where.pki}/kubelet.key",
        "address": ranges.node,
        "resolvConf": f"{where.conf}/resolv.conf",
        "clusterDNS": [ranges.dns],
        "clusterDomain": "cluster.local",
        "maxPods": 250,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        # A container that crashes is tried again every few seconds, not every five minutes.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "5s"},
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "volumePluginDir": f"{where.root}/volume-plugins",
        "shutdownGracePeriod": "0s",
    }


def _kube_proxy(where: Paths, ranges: Ranges) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": "0.0.0.0",
        "clusterCIDR": ranges.pods,
        # The host is outside of the Pods' range; its packets keep their address all the same.
        "detectLocalMode": "ClusterCIDR",
        "clientConnection": {"kubeconfig": f"{where.conf}/proxy.kubeconfig"},
        "nftables": {"minSyncPeriod": "100ms"},
        # These are settings of the whole machine, and not writable on all.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
    }


def cgroup(name: str) -> str:
    """Return the control group below which a cluster's Pods are; two kubelets would fight over one."""
    return f"berth-{name}"


def _cgroup_folders(name: str) -> list[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / cgroup(name)]
    # Version 1: one tree for each controller; links such as cpu -> cpu,cpuacct are the same tree again.
    return [tree / cgroup(name) for tree in _CGROUPS.iterdir() if tree.is_dir() and not tree.is_symlink()]


def create_cgroups(name: str) -> None:
    """Make the cluster's control groups; kubelet wants to find them."""
    if (_CGROUPS / "cgroup.controllers").exists():
        for controller in ("cpuset", "cpu", "io", "memory", "pids"):
            with contextlib.suppress(OSError):  # kubelet names the one that it misses
                (_CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
    for folder in _cgroup_folders(name):
        folder.mkdir(exist_ok=True)
        if folder.parent.name == "cpuset":
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (folder / setting).write_text((folder.parent / setting).read_text())


def remove_cgroups(name: str) -> None:
    """Remove the cluster's control groups, the innermost first. No process is in them any more."""
    for folder in _cgroup_folders(name):
        if not processes.wait_until(functools.partial(_remove_tree, folder), 5):
            raise ClusterError(f"the control group {folder} cannot be removed: something still runs in it")


def _remove_tree(folder: Path) -> bool:
    inner = [p for p in folder.rglob("*") if p.is_dir()]
    for group in (*sorted(inner, key=lambda p: -len(p.parts)), folder):
        with contextlib.suppress(OSError):
            group.rmdir()
    return not folder.exists()
