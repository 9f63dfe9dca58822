"""A cluster of plain processes: made, repaired and taken down."""

import concurrent.futures
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from localcluster import addons, binaries, controlplane, images, network, node, pki, prerequisites, processes, simulated
from localcluster import state as states
from localcluster.errors import ClusterError, with_log
from localcluster.kubeapi import Api
from localcluster.state import Paths, State


def expected(state: State) -> list[str]:
    """Return the names of the components that this cluster should have."""
    names = list(controlplane.COMPONENTS)
    if not state.control_plane:
        names += node.COMPONENTS
        names += [n for n in addons.COMPONENTS if state.gpus or n != "gpu-device-plugin"]
    if state.simulated_cidr:
        names.append(simulated.COMPONENT)
    return names


class LocalCluster:
    """One cluster and everything that is known about it. The caller holds the cluster's lock."""

    def __init__(self, where: Paths, state: State) -> None:
        self.where = where
        self.state = state
        self.ranges = network.Ranges(state.slot)
        self.init = processes.Init(where.root)
        self.started: set[str] = set()

    def up(self) -> None:
        """Start what does not run, and return when all of it works."""
        prerequisites.check(self.state.control_plane)
        names = set(binaries.CONTROL_PLANE if self.state.control_plane else (p.name for p in binaries.PROGRAMS))
        programs = binaries.ensure(names | ({"kwok"} if self.state.simulated_cidr else set()))
        archives = [] if self.state.control_plane else [images.pause(), images.busybox(), images.llama_server()]
        self.where.logs.mkdir(exist_ok=True)
        pki.create(self.where.pki, self.ranges)
        controlplane.write_configuration(self.where, self.state, self.ranges)
        if self.init.identity() is None:
            # The cable of a process 1 that died goes with its namespace, but only a moment later.
            network.disconnect(self.ranges, self.where.root)
        init = self.init.start(programs["cluster-init"], pki.NODE, self.where.logs / "cluster-init.log")
        network.connect(self.ranges, init, self.where.root)
        before = self.init.components()
        commands = controlplane.commands(self.where, self.state, self.ranges, programs)
        if not self.state.control_plane:
            node.write_configuration(self.where, self.state, self.ranges)
            node.create_cgroups(self.state.name)
            addons.write_configuration(self.where, self.ranges)
            commands |= node.commands(self.where, self.ranges, programs)
            commands |= addons.commands(self.where, self.state, programs)
        if self.state.simulated_cidr:
            commands |= simulated.commands(self.where, self.state, self.ranges, programs)
        with concurrent.futures.ThreadPoolExecutor(1) as background:
            self._start(commands, "etcd", "kube-apiserver", "containerd")
            imported = background.submit(self._import_all, archives) if archives else None
            api = Api(self.where.kubeconfig)
            self._wait("kube-apiserver", "the API server is not ready", api.ready, 60)
            # kube-proxy ends when the addresses of its node change, and so when the node appears after it.
            self._start(commands, *(c for c in commands if c != "kube-proxy"))
            if not self.state.control_plane:
                addons.install(api, self.ranges)
                self._wait("kubelet", "the node is not ready", lambda: _node_is_ready(api), 60)
            self._start(commands, "kube-proxy")
            self._wait_until_usable(api, fresh=not before)
            if imported is not None:
                imported.result()

    def _start(self, commands: dict[str, list[str]], *names: str) -> None:
        for name in names:
            if name in commands:
                self.started.add(name)
                self.init.run(name, commands[name], self.log(name))

    def _wait_until_usable(self, api: Api, fresh: bool) -> None:
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait(
            "kube-controller-manager", "namespaces get no ServiceAccount", lambda: api.get(account) is not None, 30
        )
        if self.state.control_plane:
            return
        if fresh:
            addons.label_node(api, self.state.gpus)
        if self.state.gpus:
            self._wait(
                "gpu-device-plugin",
                "the node offers no GPUs",
                lambda: addons.gpus_are_offered(api, self.state.gpus),
                30,
            )
        healthy = f"http://{self.ranges.node}:10256/healthz"
        self._wait("kube-proxy", "Services are not routed", lambda: addons.answers(healthy), 30)
        ready = f"http://{self.ranges.node}:8181/ready"
        self._wait("coredns", "the cluster's DNS does not answer", lambda: addons.answers(ready), 30)

    def _wait(self, component: str, message: str, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition, but no longer than the component lives that it depends on."""
        ended = ""

        def done() -> bool:
            nonlocal ended
            if condition():
                return True
            dead = [c for c in self.init.components().values() if c.name in self.started and not c.alive]
            ended = next((f"{c.name} {c.result}" for c in dead), "")
            return bool(ended)

        in_time = processes.wait_until(done, seconds, 0.05)
        if ended:
            raise with_log(f"{message}: {ended}", self.log(ended.split()[0]))
        if not in_time:
            raise with_log(f"{message} after {seconds:.0f} s", self.log(component))

    def _import_all(self, archives: list[Path]) -> None:
        socket = str(self.where.containerd_socket)

        def answers() -> bool:
            command = ("ctr", "--address", socket, "version")
            return subprocess.run(command, capture_output=True, check=False).returncode == 0

        if not processes.wait_until(answers, 30, 0.1):
            raise with_log("containerd does not answer", self.log("containerd"))
        for archive in archives:
            self.load_image(archive)

    def load_image(self, archive: Path) -> None:
        """Import an archive of images for Pods to use, unless they are there."""
        wanted = images.configs(archive)
        if self._has(wanted):
            return
        # The CRI plugin does not see a change behind a name; containers keep what they run.
        present = {line.split()[0] for line in self._ctr("list").splitlines()[1:]}
        for name in wanted.keys() & present:
            self._ctr("remove", "--sync", name)
        self._ctr("import", str(archive))
        # kubelet asks containerd's CRI plugin, which notices a moment later.
        if not processes.wait_until(lambda: self._has(wanted), 30):
            raise with_log(f"{archive} was imported, but its images do not appear", self.log("containerd"))

    def _has(self, wanted: dict[str, str]) -> bool:
        """Tell whether these names stand for images with these configurations.

        The CRI plugin gives each image a second name, the digest of its configuration.
        """
        rows = (line.split() for line in self._ctr("list").splitlines()[1:])
        found = {row[0]: row[2] for row in rows}
        return all(name in found and found[name] == found.get(config) for name, config in wanted.items())

    def _ctr(self, *arguments: str) -> str:
        command = (
            "ctr", "--address", str(self.where.containerd_socket), "--namespace", "k8s.io", "images", *arguments
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"`ctr images {' '.join(arguments)}` failed: {done.stderr.strip()[-600:]}")
        return done.stdout

    def log(self, component: str) -> Path:
        """Return where a component's log is."""
        return self.where.logs / f"{component}.log"

    def down(self) -> None:
        """End and remove everything, also where a command was killed half-way."""
        self.init.end()
        network.disconnect(self.ranges, self.where.root)
        node.remove_cgroups(self.state.name)
        shutil.rmtree(self.where.root)


def _node_is_ready(api: Api) -> bool:
    return simulated.node_is_ready(api.get(f"/api/v1/nodes/{pki.NODE}") or {})


def describe(where: Paths, name: str, *, control_plane: bool, audit: bool, gpus: int) -> State:
    """Write down a new cluster before anything of it exists."""
    with states.locked(states.clusters_folder()):
        slot = network.free_slot(name)
        state = State(name, "processes", slot=slot, control_plane=control_plane, audit=audit, gpus=gpus)
        states.save(where, state)
    return state
