"""Clusters of hack/cluster as they run: side by side, killed half-way, repaired, and gone without a trace."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster import addons, api, images, kind, network, processes, state
from localcluster.kubeapi import Api, Object
from localcluster.processes import wait_until

HACK = Path(__file__).parents[2] / "hack"
# Paths in which a node leaves things when it is not given folders of its own.
SHARED = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers", "/run/containerd", "/run/netns",
          "/etc/cni", "/opt/cni", "/opt/containerd", "/var/lib/containerd")  # fmt: skip

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0 or kind.usable(), reason="clusters of plain processes only"),
]


@pytest.fixture(scope="module", autouse=True)
def own_folder() -> Iterator[Path]:
    """Clusters of these tests are written down apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = Path(tempfile.mkdtemp(prefix="lc"))
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder
        for name in [s.name for s in state.all_states()]:
            api.delete(name)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def first(own_folder: Path) -> api.Cluster:
    return api.ensure("first", gpus=2)


@pytest.fixture(scope="module")
def second(own_folder: Path) -> api.Cluster:
    return api.ensure("second", gpus=1, audit=True)


def cli(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "localcluster", *args), capture_output=True, text=True, check=False, cwd=HACK
    )


def kubectl(cluster: api.Cluster, *args: str) -> str:
    command = (str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}", *args)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def web(name: str, text: str, **spec: object) -> Object:
    container = {
        "name": "web",
        "image": images.BUSYBOX_IMAGE,
        "command": ["sh", "-c", f"echo {text} > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"],
        "readinessProbe": {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1},
        **spec,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def service(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


def start(cluster: api.Cluster, pod: Object) -> Callable[[], Any]:
    """Make a Pod, wait until it is ready, and return how to look at it."""
    server, path = Api(cluster.kubeconfig), f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}"
    server.apply(path, pod)
    assert wait_until(lambda: is_ready(server.get(path)), 60, 0.1), server.get(path)
    return lambda: server.get(path)


def is_ready(pod: Object | None) -> bool:
    conditions = (pod or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def fetch(url: str) -> str | None:
    done = subprocess.run(
        ("curl", "--noproxy", "*", "-fsS", "-m", "2", url), capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else None


class Traces:
    """What a cluster may leave on the machine."""

    def __init__(self, name: str) -> None:
        found = state.load(state.paths(name))
        self.name, self.root = name, state.paths(name).root
        self.ranges = network.Ranges(found.slot) if found is not None else None
        init = processes.Init(self.root).identity()
        self.namespaces = set()
        if init is not None:
            self.namespaces = {os.readlink(f"/proc/{init.pid}/ns/{kind}") for kind in ("pid", "mnt", "net", "uts")}

    def found(self) -> list[str]:
        left = [str(p) for p in (self.root,) if p.exists()]
        left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.root) in line]
        left += [str(p) for p in Path("/sys/fs/cgroup").glob(f"**/berth-{self.name}")]
        if self.ranges is not None:
            left += [str(p) for p in Path("/sys/class/net").glob(f"{self.ranges.link}*") if self._is_mine(p)]
        for process in (p for p in Path("/proc").iterdir() if p.name.isdigit()):
            try:
                spaces = {os.readlink(process / "ns" / kind) for kind in ("pid", "mnt", "net", "uts")}
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if spaces & self.namespaces or (str(self.root) in command and process.name != str(os.getpid())):
                left.append(f"{process.name} {command}")
        return left

    def _is_mine(self, link: Path) -> bool:
        return str(self.root) in (link / "ifalias").read_text()


def shared() -> dict[str, list[str]]:
    listed = {p: sorted(os.listdir(p)) if os.path.isdir(p) else ["missing"] for p in SHARED}
    tables = subprocess.run(("nft", "list", "tables"), capture_output=True, text=True, check=True).stdout
    return {**listed, "nft": tables.splitlines()}


def test_two_clusters_answer_side_by_side_from_the_host(first: api.Cluster, second: api.Cluster) -> None:
    for cluster in (first, second):
        pod = start(cluster, web("web", cluster.name))()
        assert fetch(f"http://{pod['status']['podIP']}:8080/") == f"{cluster.name}\n"
        server = Api(cluster.kubeconfig)
        server.apply("/api/v1/namespaces/default/services/web", service("web"))
        made = server.get("/api/v1/namespaces/default/services/web")
        assert made is not None
        url = f"http://{made['spec']['clusterIP']}/"
        assert wait_until(lambda url=url, name=cluster.name: fetch(url) == f"{name}\n", 20, 0.1)  # type: ignore[misc]


def test_a_pod_finds_services_by_name_and_gets_gpus_and_a_volume(first: api.Cluster) -> None:
    server = Api(first.kubeconfig)
    server.apply("/api/v1/namespaces/default/services/named", service("named"))
    claim = "/api/v1/namespaces/default/persistentvolumeclaims/data"
    server.apply(
        claim,
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
    )
    pod = web("named", "named", resources={"limits": {"nvidia.com/gpu": "2"}},
              volumeMounts=[{"name": "data", "mountPath": "/data"}])  # fmt: skip
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    pod["spec"]["securityContext"] = {"runAsUser": 65532, "runAsNonRoot": True}
    start(first, pod)

    assert kubectl(first, "exec", "named", "--", "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES").count("GPU-") == 2
    kubectl(first, "exec", "named", "--", "touch", "/data/written")
    written = list(state.paths("first").volumes.glob("*/written"))
    assert len(written) == 1

    asking = start(first, web("asking", "asking"))()
    assert asking["spec"]["nodeName"] == "berth"
    url = "http://named.default.svc.cluster.local/"
    look = (str(first.kubectl), f"--kubeconfig={first.kubeconfig}", "exec", "asking", "--", "wget", "-qO-", url)
    assert wait_until(lambda: subprocess.run(look, capture_output=True, check=False).stdout == b"named\n", 20, 0.1)

    kubectl(first, "delete", "pod/named", "pvc/data")
    assert wait_until(lambda: not written[0].parent.exists(), 30, 0.1)
    assert wait_until(lambda: not kubectl(first, "get", "pv", "-o", "name"), 30, 0.1)


def test_the_node_is_labelled_as_one_with_gpus(first: api.Cluster) -> None:
    node = json.loads(kubectl(first, "get", "node", "berth", "-o", "json"))
    assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == addons.GPU_PRODUCT
    assert node["metadata"]["labels"]["nvidia.com/gpu.count"] == "2"
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"


def test_pods_of_simulated_nodes_say_that_they_run(second: api.Cluster) -> None:
    names = api.add_nodes("second", 2, gpus=8, product="P", memory=1000)
    assert len(names) == 2
    pod = web("far", "far", resources={"limits": {"nvidia.com/gpu": "8"}})
    far = start(second, pod)()
    assert far["spec"]["nodeName"] in names
    assert api.add_nodes("second", 1) != names[:1]


def test_requests_are_audited_where_that_was_asked_for(first: api.Cluster, second: api.Cluster) -> None:
    assert first.audit_log is None
    assert second.audit_log is not None
    kubectl(second, "get", "namespace", "default")
    lines = [json.loads(line) for line in second.audit_log.read_text().splitlines()]
    assert all(line["level"] == "Metadata" for line in lines)
    assert any(line.get("objectRef", {}).get("resource") == "namespaces" for line in lines)


def test_an_image_is_loaded_from_an_archive(first: api.Cluster, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(images.archive("localhost/loaded:1", images.tree(tmp_path), command=["/none"]))
    done = cli("load-image", "--name", "first", str(archive))
    assert done.stdout.split() == ["localhost/loaded:1"], done.stderr


def test_what_was_killed_is_started_again_and_pods_go_on(first: api.Cluster) -> None:
    look = start(first, web("lasting", "lasting"))
    address = look()["status"]["podIP"]
    init = processes.Init(state.paths("first").root)
    before = init.components()
    for victim in before.values():
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
    assert wait_until(lambda: not any(c.alive for c in init.components().values()), 10)
    assert fetch(f"http://{address}:8080/") == "lasting\n"
    assert cli("status", "--name", "first").returncode == 3

    assert api.ensure("first") == first
    assert cli("status", "--name", "first").returncode == 0
    assert fetch(f"http://{address}:8080/") == "lasting\n"
    # The kubelet is a new one: the device plugin has registered again.
    assert wait_until(lambda: addons.gpus_are_offered(Api(first.kubeconfig), 2), 30, 0.1)
    assert wait_until(lambda: is_ready(look()), 30, 0.1)


def test_pods_come_back_after_everything_was_killed(second: api.Cluster) -> None:
    pod = web("again", "again")
    pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "berth"}
    look = start(second, pod)
    init = processes.Init(state.paths("second").root)
    identity = init.identity()
    assert identity is not None
    os.kill(identity.pid, signal.SIGKILL)
    assert wait_until(lambda: not identity.alive(), 10)

    api.ensure("second")
    assert wait_until(
        lambda: is_ready(look()) and fetch(f"http://{look()['status']['podIP']}:8080/") is not None, 60, 0.2
    )


def test_up_on_a_cluster_that_is_up_changes_nothing(first: api.Cluster) -> None:
    init = processes.Init(state.paths("first").root)
    before = init.components()
    assert api.ensure("first") == first
    assert init.components() == before


def test_other_options_than_a_cluster_has_are_refused(first: api.Cluster) -> None:
    done = cli("up", "--name", "first", "--audit")
    assert done.returncode == 1
    assert "writes no audit log" in done.stderr


def test_a_component_that_cannot_start_is_named_with_its_log(own_folder: Path) -> None:
    name = "broken"
    where = state.paths(name)
    where.root.mkdir(parents=True)
    (where.root / "etcd").write_text("this is no folder")
    done = cli("up", "--name", name, "--control-plane")
    assert done.returncode == 1
    assert "etcd ended with status" in done.stderr
    assert str(where.logs / "etcd.log") in done.stderr
    traces = Traces(name)
    assert cli("down", "--name", name).returncode == 0
    assert wait_until(lambda: not traces.found(), 5), traces.found()


@pytest.mark.parametrize(
    "moment",
    ["cluster.json", "init.lock", "init.json", "init.sock", "containerd.sock", "log/kubelet.log", "log/kube-proxy.log"],
)
def test_killed_half_way_nothing_is_left_after_down(own_folder: Path, moment: str) -> None:
    before = shared()
    name = "half"
    root = state.paths(name).root
    with subprocess.Popen((sys.executable, "-m", "localcluster", "up", "--name", name), cwd=HACK, text=True,
                          stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as up:  # fmt: skip
        assert wait_until((root / moment).exists, 60, 0.001), up.stderr
        up.kill()
    traces = Traces(name)
    done = cli("down", "--name", name)
    assert done.returncode == 0, done.stderr
    assert wait_until(lambda: not traces.found(), 5), traces.found()
    assert shared() == before


def test_killed_half_way_the_next_up_goes_on(own_folder: Path) -> None:
    name = "half"
    root = state.paths(name).root
    command = (sys.executable, "-m", "localcluster", "up", "--name", name, "--control-plane")
    with subprocess.Popen(command, cwd=HACK, stdout=subprocess.DEVNULL) as up:
        assert wait_until((root / "log/kube-apiserver.log").exists, 60, 0.001)
        up.kill()
    assert Api(api.ensure(name).kubeconfig).ready()
    traces = Traces(name)
    api.delete(name)
    assert wait_until(lambda: not traces.found(), 5), traces.found()


def test_down_with_pods_leaves_nothing(first: api.Cluster) -> None:
    pod = web("left", "left", volumeMounts=[{"name": "m", "mountPath": "/m"}])
    pod["spec"]["volumes"] = [{"name": "m", "emptyDir": {"medium": "Memory"}}]
    start(first, pod)
    before = shared()
    traces = Traces("first")
    assert traces.found()
    assert api.delete("first")
    assert wait_until(lambda: not traces.found(), 5), traces.found()
    assert shared() == before
    assert cli("status", "--name", "first").returncode == 3
