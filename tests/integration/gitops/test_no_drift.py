"""Nothing that the operator does shows as a difference from Git, in any phase, however the manifests were applied."""

import json

import pytest
import yaml

from support.gitops import LABELS, PREFIXES, Way, tracked, without_bookkeeping
from support.kube import Cluster, eventually
from support.model_phases import Stage
from support.models import Manifest, custom, patch, pods, wait_for_phase

pytestmark = pytest.mark.control_plane

CHILDREN = (
    "deployments,replicasets,pods,services,endpointslices,networkpolicies,poddisruptionbudgets,"
    "jobs,persistentvolumeclaims"
)


def _declared(staged: Stage) -> list[Manifest]:
    return [tracked(manifest) for manifest in staged.declared.values()]


def _difference(staged: Stage, way: Way, *manifests: Manifest) -> str:
    done = way.kubectl(staged.cluster, staged.namespace, "diff", *manifests, check=False)
    assert done.stderr == ""
    return done.stdout


def _no_difference(staged: Stage, way: Way, *manifests: Manifest) -> None:
    """A status that is written between kubectl's two looks would be one, and is none the next time."""

    def none() -> bool:
        found = _difference(staged, way, *manifests)
        assert found == ""
        return True

    eventually(none, 20, "no difference")


def test_kubectl_diff_is_empty_in_every_phase(staged: Stage, way: Way) -> None:
    _no_difference(staged, way, *_declared(staged))


def test_what_a_server_side_apply_would_change_is_nothing(staged: Stage) -> None:
    """The comparison of Argo CD's ServerSideDiff and of Flux, also for objects that were applied otherwise."""
    done = staged.cluster.kubectl(
        *("-n", staged.namespace, "apply", "--server-side", "--force-conflicts", "--dry-run=server"),
        *("--field-manager=argocd-controller", "-f", "-", "-o", "json"),
        input=yaml.safe_dump_all(_declared(staged)),
    )
    predicted = {(one["kind"], one["metadata"]["name"]): one for one in json.loads(done.stdout)["items"]}
    assert len(predicted) == len(staged.declared)
    for kind, name in predicted:
        live = staged.cluster.get(kind.lower(), name, staged.namespace)
        assert live is not None
        assert without_bookkeeping(predicted[kind, name]) == without_bookkeeping(live)


def test_berth_owns_the_status_and_nothing_else(staged: Stage, way: Way) -> None:
    for name, manifest in staged.declared.items():
        live = staged.cluster.get(manifest["kind"].lower(), name, staged.namespace)
        assert live is not None
        managers = {(m["manager"], m.get("subresource", "")) for m in live["metadata"]["managedFields"]}
        assert (name, managers) == (name, {(way.manager, ""), ("berth", "status")})
        assert "finalizers" not in live["metadata"]


def test_what_belongs_to_a_model_carries_no_mark_of_the_tool_that_applied_the_model(staged: Stage) -> None:
    done = staged.cluster.kubectl("-n", staged.namespace, "get", CHILDREN, "-o", "json")
    ours = [one for one in json.loads(done.stdout)["items"] if one["metadata"]["name"] not in ("for-one-pod",)]
    assert {one["kind"] for one in ours} >= {"Deployment", "Pod", "Service", "Job", "PersistentVolumeClaim"}
    for one in ours:
        metadata = one["metadata"]
        where = f"{one['kind']} {metadata['name']}"
        marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
        assert [key for key in marks if key.startswith(PREFIXES)] == [], where
        assert "Helm" not in marks.values(), where
        assert LABELS["app.kubernetes.io/instance"] not in marks.values(), where


def test_every_object_without_an_owner_is_no_instance_of_anything(staged: Stage, way: Way) -> None:
    """Argo CD told to track by label would take it for its own, and prune it."""
    kept = {"apiVersion": "berth.dev/v1alpha1", "kind": "ModelCache", "metadata": {"name": "kept"}}
    way.kubectl(staged.cluster, staged.namespace, "apply", tracked({**kept, "spec": {"storage": {"size": "1Gi"}}}))
    claim = eventually(lambda: staged.cluster.get("pvc", "modelcache-kept", staged.namespace), 20)
    assert "ownerReferences" not in claim["metadata"]
    assert claim["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "berth"
    done = staged.cluster.kubectl("-n", staged.namespace, "get", CHILDREN, "-o", "json")
    for one in json.loads(done.stdout)["items"]:
        if "ownerReferences" not in one["metadata"]:
            assert "app.kubernetes.io/instance" not in (one["metadata"].get("labels") or {}), one["metadata"]["name"]


def test_an_autoscaler_may_own_replicas_that_are_not_in_git(staged: Stage, way: Way) -> None:
    cluster, namespace = staged.cluster, staged.namespace
    manifest = tracked(custom("scaled"))
    way.kubectl(cluster, namespace, "apply", manifest)
    wait_for_phase(cluster, namespace, "scaled", "Pending")
    cluster.kubectl("-n", namespace, "scale", "model", "scaled", "--replicas=3")
    eventually(lambda: len(pods(cluster, namespace, "scaled")) == 3, 20, "three Pods")
    _no_difference(staged, way, manifest)
    way.kubectl(cluster, namespace, "apply", tracked(custom("scaled", priority=200)))
    live = cluster.get("model", "scaled", namespace)
    assert live is not None
    assert (live["spec"]["replicas"], live["spec"]["priority"]) == (3, 200)


def test_replicas_that_leave_git_stay_with_the_autoscaler_only_when_applied_on_the_servers_side(
    staged: Stage, way: Way
) -> None:
    """`kubectl apply` on the client's side takes away what it once set, and the default is 1."""
    cluster, namespace = staged.cluster, staged.namespace
    way.kubectl(cluster, namespace, "apply", tracked(custom("handed-over", replicas=2)))
    cluster.kubectl("-n", namespace, "scale", "model", "handed-over", "--replicas=3")
    way.kubectl(cluster, namespace, "apply", tracked(custom("handed-over")))
    live = cluster.get("model", "handed-over", namespace)
    assert live is not None
    assert live["spec"]["replicas"] == {"client-side": 1, "argocd": 3}[way.name]


def test_a_change_by_hand_of_what_git_says_is_seen(staged: Stage, way: Way) -> None:
    """So that an empty difference means something."""
    cluster: Cluster = staged.cluster
    manifest = tracked(custom("edited", priority=50))
    way.kubectl(cluster, staged.namespace, "apply", manifest)
    patch(cluster, staged.namespace, "edited", {"spec": {"priority": 60}})
    assert "priority: 60" in _difference(staged, way, manifest)
