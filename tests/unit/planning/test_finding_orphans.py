"""What is left behind: found after a time of grace, and never what belongs to somebody."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from berth.controllers.store import Store
from berth.planning import names
from berth.planning.gpu_nodes import render_gpu_node
from berth.planning.nodes import node_from
from berth.planning.orphans import ORPHAN_KINDS, Findings, Orphan, OrphanWorld, find_orphans
from berth.planning.pods import pod_from
from berth.planning.policy import OrphansPolicy, Policy
from berth.planning.world import child_from, subject_from
from support import builders
from support.builders import NOW

REPORT = Policy(orphans_grace=300)
DELETE = Policy(orphans_grace=300, orphans=OrphansPolicy.DELETE)
LATER = NOW + timedelta(seconds=300)
Manifest = dict[str, Any]


def thing(manifest: Manifest) -> Any:
    kind = manifest["kind"]
    if kind in ("Model", "ModelCache"):
        return subject_from(manifest)
    return {"Pod": pod_from, "Node": node_from}.get(kind, child_from)(manifest)


def world(*manifests: Manifest, unknown: Iterable[str] = ()) -> OrphanWorld:
    return OrphanWorld(tuple(thing(manifest) for manifest in manifests), frozenset(unknown))


def found(there: OrphanWorld, policy: Policy = REPORT) -> list[Orphan]:
    """What a look after the time of grace finds, when one before it saw the same."""
    first = find_orphans(there, {}, NOW, policy)
    assert first.orphans == ()
    return list(find_orphans(there, first.since, LATER, policy).orphans)


def kinds(there: OrphanWorld, policy: Policy = REPORT) -> list[str]:
    return [orphan.what for orphan in found(there, policy)]


def owned(manifest: Manifest, uid: str, kind: str) -> Manifest:
    manifest["metadata"]["ownerReferences"] = [builders.owner(uid, kind)]
    return manifest


def replica_set(**more: Any) -> Manifest:
    return builders.child("ReplicaSet", "m-1", labels=names.child_labels("m", "custom"), **more)


# ---- whose it is ---------------------------------------------------------------------------------------------


def test_children_of_a_model_that_is_there_are_none() -> None:
    child = builders.child(owned_by=builders.owner())
    assert found(world(builders.model(), child)) == []


def test_a_child_without_owner_is_one_when_its_model_is_gone() -> None:
    (orphan,) = found(world(builders.child()))
    assert (orphan.what, orphan.namespace, orphan.name) == ("Deployment", builders.NAMESPACE, "m")
    assert orphan.message == (
        "was made for Model m, which is gone, and it has no owner; "
        "make the Model anew to have it taken over, or delete it"
    )


def test_a_child_that_its_model_is_about_to_adopt_is_none() -> None:
    assert found(world(builders.model(), builders.child())) == []


def test_a_copy_with_our_labels_under_another_name_is_adopted_by_nobody() -> None:
    copy = builders.child(name="copy", labels=names.child_labels("m", "custom"))
    assert kinds(world(builders.model(), copy)) == ["Deployment"]


def test_a_child_that_the_garbage_collector_never_took_is_one() -> None:
    (orphan,) = found(world(builders.model(), builders.child(owned_by=builders.owner("gone"))))
    assert "its Model no longer exists" in orphan.message


def test_what_is_being_deleted_is_none() -> None:
    assert found(world(builders.child(deleting=True))) == []


def test_what_others_made_is_none() -> None:
    foreign = [builders.child("Service", ours=False), builders.claim(cache="")]
    assert found(world(*foreign)) == []


def test_what_others_own_is_their_affair() -> None:
    assert found(world(builders.child(owned_by=builders.owner("x", "Application")))) == []


def test_an_orphaned_deployment_is_counted_once() -> None:
    deployment = builders.child()
    middle = replica_set(owned_by=builders.owner("deployment-m", "Deployment"))
    pods = [owned(builders.pod(name), "replicaset-m-1", "ReplicaSet") for name in ("p1", "p2")]
    assert kinds(world(deployment, middle, *pods)) == ["Deployment"]


def test_a_pod_whose_replica_set_is_gone_is_one() -> None:
    pod = owned(builders.pod(), "gone", "ReplicaSet")
    assert kinds(world(builders.model(), pod)) == ["Pod"]
    assert kinds(world(builders.model(), pod, unknown=["ReplicaSet"])) == [], "unknown is not gone"


def test_a_job_of_a_vanished_cache_is_one_and_its_pod_is_counted_with_it() -> None:
    job = builders.job("llama-1")
    pod = owned(builders.pod(labels={names.CACHE_LABEL: "default"}), "download-uid", "Job")
    assert kinds(world(builders.model_cache(), job, pod)) == []
    assert kinds(world(job, pod)) == ["Job"]


def test_the_claim_of_a_vanished_cache_is_told_and_never_deleted() -> None:
    (orphan,) = found(world(builders.claim()), DELETE)
    assert (orphan.what, orphan.deletes, orphan.kept_on_purpose) == ("PersistentVolumeClaim", False, True)
    assert "keeps the weights of ModelCache default" in orphan.message
    assert found(world(builders.model_cache(), builders.claim())) == []


def test_a_gpu_node_without_its_node_is_one() -> None:
    rendered = render_gpu_node(node_from(builders.node(gpus=4)))
    made = {**rendered, "metadata": {**rendered["metadata"], "uid": "g", "resourceVersion": "1"}}
    assert kinds(world(made)) == ["GPUNode"]
    assert kinds(world(made, unknown=["Node"])) == []
    made["metadata"].pop("ownerReferences")
    assert kinds(world(builders.node(gpus=4), made)) == [], "its Node takes it over"


def test_a_budget_that_its_model_did_not_take_over_is_not_wanted() -> None:
    (orphan,) = found(world(builders.model(), builders.child("PodDisruptionBudget")))
    assert orphan.message == "was made for Model m, and it has no owner; delete it"


# ---- when ----------------------------------------------------------------------------------------------------


def test_what_finds_an_owner_in_the_time_of_grace_begins_anew() -> None:
    child = builders.child()
    first = find_orphans(world(child), {}, NOW, REPORT)
    adopted = find_orphans(world(child, builders.model()), first.since, LATER, REPORT)
    assert adopted == Findings((), {})
    again = find_orphans(world(child), adopted.since, LATER, REPORT)
    assert (again.orphans, again.since) == ((), {"deployment-m": LATER})


# ---- what becomes of it ----------------------------------------------------------------------------------------


def test_nothing_is_deleted_unless_that_is_wanted() -> None:
    there = world(builders.child(), builders.child("Service"))
    assert not any(orphan.deletes for orphan in found(there))
    assert all(orphan.deletes for orphan in found(there, DELETE))


def test_services_go_before_the_servers_behind_them() -> None:
    there = world(builders.child("NetworkPolicy"), builders.child(), builders.child("Service"))
    assert kinds(there, DELETE) == ["Service", "Deployment", "NetworkPolicy"]


def test_every_kind_is_counted_also_those_of_which_there_are_none() -> None:
    counts = find_orphans(world(builders.child()), {"deployment-m": NOW}, LATER, REPORT).counts()
    assert counts == {kind: int(kind == "Deployment") for kind in ORPHAN_KINDS}


# ---- GPU processes -------------------------------------------------------------------------------------------


def gpu_node(*processes: Manifest, written: datetime = LATER) -> Manifest:
    gpus = [{"uuid": f"GPU-{number}", "processes": [process]} for number, process in enumerate(processes)]
    written_at = written.strftime("%Y-%m-%dT%H:%M:%SZ")
    rendered = render_gpu_node(node_from(builders.node(gpus=4)))
    metadata = {**rendered["metadata"], "uid": "g", "resourceVersion": "1"}
    return {**rendered, "metadata": metadata, "status": {"lastWrittenAt": written_at, "gpus": gpus}}


def process(pid: int = 7, uid: str = "gone", memory: int | None = 1000, **more: Any) -> Manifest:
    used = {} if memory is None else {"memoryMiB": memory}
    return {"pid": pid, "command": "vllm", "podUid": uid, **used, **more}


def lost(*processes: Manifest, living: Iterable[str] | None = (), written: datetime = LATER) -> list[Orphan]:
    things = tuple(map(thing, (builders.node(gpus=4), gpu_node(*processes, written=written))))
    return found(OrphanWorld(things, living_pods=None if living is None else frozenset(living)), DELETE)


def test_a_process_whose_pod_is_gone_is_told_about_its_node_and_never_ended() -> None:
    (orphan,) = lost(process(namespace="team", pod="m-1-x"))
    assert (orphan.what, orphan.kind, orphan.name, orphan.deletes) == ("GPUProcess", "GPUNode", "n1", False)
    assert orphan.message == (
        "process 7 (vllm) on node n1 uses 1000 MiB of GPU memory, and its Pod team/m-1-x (uid gone) no longer exists; "
        "Berth ends no process: do so on the node"
    )


def test_a_process_on_several_gpus_is_told_once() -> None:
    (orphan,) = lost(process(), process(memory=24))
    assert "1024 MiB" in orphan.message
    assert "an unknown amount" in lost(process(), process(memory=None))[0].message


def test_processes_of_pods_that_exist_are_none_whoever_made_the_pod() -> None:
    assert lost(process(uid="a"), process(uid="b"), living=["a", "b"]) == []


def test_programs_of_the_host_are_none() -> None:
    assert lost({"pid": 1, "command": "ollama", "foreign": True}, {"pid": 2, "command": ""}) == []


def test_nothing_is_said_where_pods_may_not_be_seen() -> None:
    assert lost(process(), living=None) == []


def test_of_other_namespaces_nothing_is_said_where_one_is_served() -> None:
    things = (thing(gpu_node(process(1, namespace="team", pod="p"), process(2, "other"))),)
    there = OrphanWorld(things, frozenset({"Node"}), frozenset(), "team")
    (orphan,) = found(there)
    assert "process 1 " in orphan.message


def test_an_old_report_of_a_node_proves_nothing() -> None:
    assert lost(process(), written=NOW) == [], "its agent has not looked since the Pod was missed"


# ---- whatever there is ---------------------------------------------------------------------------------------

OWNERS = st.sampled_from(
    [None, ("model-uid", "Model"), ("cache-uid", "ModelCache"), ("gone", "Model"), ("deployment-m", "Deployment")]
)


@st.composite
def objects(draw: st.DrawFn) -> Manifest:
    kind = draw(st.sampled_from(["Deployment", "Service", "NetworkPolicy", "ReplicaSet", "Pod", "Job", "claim"]))
    deleting = draw(st.booleans())
    if kind == "claim":
        made = builders.claim(deleting=deleting)
    elif kind == "Pod":
        made = builders.pod(deleting=deleting)
    else:
        made = builders.child(kind, deleting=deleting)
    if (owner := draw(OWNERS)) is not None:
        owned(made, *owner)
    return made


@given(
    st.lists(objects(), max_size=5, unique_by=lambda manifest: manifest["kind"]),
    st.sampled_from([(), (builders.model(),), (builders.model(), builders.model_cache())]),
    st.sampled_from([REPORT, DELETE]),
    st.integers(0, 600),
)
def test_only_what_nobody_owns_is_found_and_only_after_its_time(
    there: list[Manifest], subjects: tuple[Manifest, ...], policy: Policy, seconds: int
) -> None:
    store = Store()
    for manifest in (*subjects, *there):
        if manifest["kind"] != "ReplicaSet":
            store.observe(manifest)
    everything = OrphanWorld(tuple(store.everything()))
    first = find_orphans(everything, {}, NOW, policy)
    second = find_orphans(everything, first.since, NOW + timedelta(seconds=seconds), policy)
    assert first.orphans == ()
    assert not second.orphans or seconds >= policy.orphans_grace
    known = {one.uid for one in everything.things}
    by_uid = {manifest["metadata"]["uid"]: manifest for manifest in there}
    for orphan in second.orphans:
        metadata = by_uid[orphan.uid]["metadata"]
        assert "deletionTimestamp" not in metadata
        assert all(owner["uid"] not in known for owner in metadata.get("ownerReferences", ()))
        assert not orphan.deletes or (policy is DELETE and orphan.kind != "PersistentVolumeClaim")
