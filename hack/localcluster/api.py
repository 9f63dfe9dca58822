"""Clusters for tests and the demo: made when needed, found when there."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

from localcluster import binaries, kind, prerequisites, processes, simulated, state
from localcluster.errors import ClusterError
from localcluster.kubeapi import Api
from localcluster.local import LocalCluster, describe, expected
from localcluster.state import Paths, State


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster that answers."""

    name: str
    kubeconfig: Path
    kubectl: Path
    log_dir: Path
    audit_log: Path | None
    is_control_plane: bool


def ensure(
    name: str = "berth",
    control_plane: bool | None = None,
    audit: bool | None = None,
    gpus: int | None = None,
    kubeconfig: Path | None = None,
) -> Cluster:
    """Return the cluster of this name, up and complete; make, finish or repair it first where that is needed.

    An option that is None is as the cluster has it, or the default for a new one. A cluster with a node is
    enough for who asks for a control plane only.
    """
    where = state.paths(name)
    with state.locked(where.root):
        found = state.load(where)
        if found is None:
            try:
                found = _describe(where, name, control_plane, audit, gpus, kubeconfig)
            except BaseException:
                shutil.rmtree(where.root)  # nothing but the folder was made
                raise
        else:
            _compare(found, control_plane, audit, gpus, kubeconfig)
        if found.kind == "processes":
            LocalCluster(where, found).up()
        elif found.kind == "kind":
            kind.up(where, found)
        else:
            _verify(Path(found.kubeconfig))
        return _cluster(where, found)


def _describe(
    where: Paths, name: str, control_plane: bool | None, audit: bool | None, gpus: int | None, kubeconfig: Path | None
) -> State:
    if kubeconfig is not None:
        _verify(kubeconfig)
        found = State(name, "existing", kubeconfig=str(kubeconfig.absolute()))
    elif kind.usable():
        if audit:
            raise ClusterError(
                "a cluster of kind writes no audit log; without kind on PATH one of plain processes is made"
            )
        found = State(name, "kind", gpus=4 if gpus is None else gpus)
    else:
        prerequisites.check(bool(control_plane))
        return describe(
            where, name, control_plane=bool(control_plane), audit=bool(audit), gpus=4 if gpus is None else gpus
        )
    state.save(where, found)
    return found


def _compare(
    found: State, control_plane: bool | None, audit: bool | None, gpus: int | None, kubeconfig: Path | None
) -> None:
    again = f"; take it down first (hack/cluster down --name {found.name}) or choose another name"
    if kubeconfig is not None and str(kubeconfig.absolute()) != found.kubeconfig:
        raise ClusterError(f"the cluster {found.name} is another one than that of {kubeconfig}{again}")
    if control_plane is False and found.control_plane:
        raise ClusterError(f"the cluster {found.name} has no node{again}")
    if audit and not found.audit:
        raise ClusterError(f"the cluster {found.name} writes no audit log{again}")
    if gpus is not None and gpus != found.gpus and not control_plane:
        raise ClusterError(f"the node of the cluster {found.name} has {found.gpus} GPUs{again}")


def _cluster(where: Paths, found: State) -> Cluster:
    return Cluster(
        name=found.name,
        kubeconfig=Path(found.kubeconfig) if found.kubeconfig else where.kubeconfig,
        kubectl=kubectl(),
        log_dir=where.logs,
        audit_log=where.audit_log if found.audit else None,
        is_control_plane=found.control_plane,
    )


def kubectl() -> Path:
    """Return a kubectl of our version, or the user's own where there is no Go to build one."""
    try:
        return binaries.ensure(["kubectl"])["kubectl"]
    except ClusterError:
        if own := shutil.which("kubectl"):
            return Path(own)
        raise


def _verify(kubeconfig: Path) -> None:
    """Ask a cluster that was not made here whether it is ready, in any way its kubeconfig logs in."""
    command = (str(kubectl()), f"--kubeconfig={kubeconfig}", "get", "--raw=/readyz", "--request-timeout=10s")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ClusterError(f"the cluster of {kubeconfig} does not answer: {reason}")


def _answers(found: State, kubeconfig: Path) -> bool:
    if found.kind == "kind":
        return kubeconfig.exists() and Api(kubeconfig).ready()
    try:
        _verify(kubeconfig)
    except ClusterError:
        return False
    return True


def exists(name: str) -> bool:
    """Tell whether a cluster of this name is written down, up or not."""
    return state.load(state.paths(name)) is not None


def find(name: str) -> tuple[Paths, State]:
    """Return a cluster that is written down."""
    where = state.paths(name)
    found = state.load(where)
    if found is None:
        raise ClusterError(f"there is no cluster {name}; hack/cluster up --name {name} makes it")
    return where, found


def delete(name: str = "berth") -> bool:
    """Remove the cluster of this name and everything of it; tell whether there was one."""
    where = state.paths(name)
    if not where.root.exists():
        return False
    with state.locked(where.root):
        found = state.load(where)
        if found is not None and found.kind == "kind":
            kind.down(where, found)
        if found is not None and found.kind == "processes":
            LocalCluster(where, found).down()
        else:
            shutil.rmtree(where.root)
    return found is not None


def load_image(name: str, archive: Path) -> None:
    """Import an archive of images for Pods to use."""
    where, found = find(name)
    if found.kind == "existing":
        raise ClusterError("images of a cluster that was not made here come from its registry; push the image there")
    if found.control_plane:
        raise ClusterError(f"the cluster {name} has no node that could run images")
    if found.kind == "kind":
        kind.load_image(found, archive)
    else:
        LocalCluster(where, found).load_image(archive)


def add_nodes(
    name: str, count: int, gpus: int = 8, product: str = "NVIDIA-H100-80GB-HBM3", memory: int = 81559, cidr: str = ""
) -> list[str]:
    """Add simulated nodes and return their names. `cidr` is where their Pods' addresses come from."""
    where, found = find(name)
    if found.kind != "processes":
        raise ClusterError(f"simulated nodes are only added to clusters of plain processes, not to {name}")
    with state.locked(where.root):
        cluster = LocalCluster(where, found)
        wanted = cidr or found.simulated_cidr or cluster.ranges.simulated_pods
        if found.simulated_cidr and found.simulated_cidr != wanted:
            raise ClusterError(f"Pods of simulated nodes of {name} have addresses of {found.simulated_cidr} already")
        found.simulated_cidr = wanted
        state.save(where, found)  # from here on, kwok is one of the components that up starts
        cluster.up()
        return simulated.add(Api(where.kubeconfig), count, gpus, product, memory)


def status(name: str) -> dict[str, object]:
    """Return what there is to know about a cluster; `alive` tells whether all of it runs."""
    where, found = find(name)
    result: dict[str, object] = {
        "name": name,
        "kind": found.kind,
        "control_plane": found.control_plane,
        "kubeconfig": found.kubeconfig or str(where.kubeconfig),
        "logs": str(where.logs),
    }
    if found.kind != "processes":
        alive = _answers(found, Path(str(result["kubeconfig"])))
        more = {"addresses": kind.addresses(where, found)} if alive and found.kind == "kind" else {}
        return result | {"alive": alive, "components": [], **more}
    cluster = LocalCluster(where, found)
    running = cluster.init.components()
    components = []
    for component in expected(found):
        known = running.get(component)
        pid = known.pid if known is not None and known.alive else None
        components.append(
            {
                "name": component,
                "alive": pid is not None,
                "pid": pid,
                "memory": processes.memory(pid) if pid else 0,
                "note": "" if pid else (known.result if known else "not started"),
            }
        )
    return result | {
        "alive": all(c["alive"] for c in components),
        "server": cluster.ranges.api_url,
        "audit_log": str(where.audit_log) if found.audit else None,
        "addresses": {
            "node": cluster.ranges.node,
            "host": cluster.ranges.host,
            "pods": cluster.ranges.pods,
            "services": cluster.ranges.services,
            "dns": cluster.ranges.dns,
            "simulated pods": found.simulated_cidr or None,
        },
        "components": components,
    }
