"""The store knows the newest version of everything, whoever brings the news and in whatever order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.controllers.store import Key, Store
from berth.planning import names
from berth.planning.world import Refusal
from support import builders
from support.builders import NAMESPACE, NOW

KEY = Key("Model", NAMESPACE, "m")


@pytest.fixture
def store() -> Store:
    """A store that knows one Model."""
    store = Store()
    store.observe(builders.model())
    return store


def forget(store: Store, manifest: dict[str, Any], version: str | None = None) -> tuple[Key, ...]:
    metadata = manifest["metadata"]
    return store.forget(manifest["kind"], NAMESPACE, metadata["name"], metadata["uid"], version)


# ---- Models --------------------------------------------------------------------------------------------------


def test_a_model_is_gathered_as_it_was_seen_last(store: Store) -> None:
    assert store.observe(builders.model(version=2, generation=2)) == (KEY,)
    assert store.gather(KEY).subject.generation == 2


def test_an_older_version_is_no_news(store: Store) -> None:
    store.observe(builders.model(version=7, generation=2))
    assert store.observe(builders.model(version=6, generation=1)) == ()
    assert store.gather(KEY).subject.generation == 2


def test_versions_are_compared_as_numbers(store: Store) -> None:
    store.observe(builders.model(version=99))
    assert store.observe(builders.model(version=100, generation=2)) == (KEY,)


def test_the_echo_of_our_own_status_wakes_nobody(store: Store) -> None:
    written = builders.model(version=2, status={"phase": "Ready"})
    store.observe(written)
    assert store.observe(written) == ()


def test_labels_of_a_model_wake_nobody(store: Store) -> None:
    assert store.observe(builders.model(version=2, labels={"team": "a"})) == ()
    assert store.gather(KEY).subject.resource_version == "2"


def test_a_status_that_somebody_edited_is_looked_at(store: Store) -> None:
    assert store.observe(builders.model(version=2, status={"phase": "Ready"})) == (KEY,)


def test_a_deleted_model_is_gone(store: Store) -> None:
    forget(store, builders.model(), "2")
    assert store.gather(KEY) is None
    assert list(store.all_keys()) == []


def test_a_recreated_model_inherits_no_memories(store: Store) -> None:
    store.memories.status_written(KEY, NOW)
    store.memories.refuse(KEY, Refusal("Deployment", "m", "InvalidSpec", "no", "hash", NOW))
    store.observe(builders.model(version=9, uid="another"))
    world = store.gather(KEY)
    assert (world.refusals, world.status_written_at) == ((), None)


def test_the_end_of_the_predecessor_does_not_remove_the_successor(store: Store) -> None:
    store.observe(builders.model(version=9, uid="another"))
    forget(store, builders.model(), "5")
    assert store.gather(KEY).subject.uid == "another"


def test_memories_of_a_deleted_model_are_not_kept(store: Store) -> None:
    forget(store, builders.model(), "2")
    store.memories.refuse(KEY, Refusal("Deployment", "m", "InvalidSpec", "no", "hash", NOW))
    store.memories.accept(KEY, "Deployment", "m", "hash", frozenset({"spec"}))
    store.memories.status_written(KEY, NOW)
    store.observe(builders.model(version=9, uid="another"))
    world = store.gather(KEY)
    assert (world.refusals, world.stubborn, world.status_written_at) == ((), {}, None)


# ---- Pods ----------------------------------------------------------------------------------------------------


def test_pods_of_a_model_are_gathered(store: Store) -> None:
    assert store.observe(builders.pod("b")) == (KEY,)
    store.observe(builders.pod("a"))
    store.observe(builders.pod("c", model="other"))
    assert [pod.name for pod in store.gather(KEY).pods] == ["a", "b"]


def test_a_pod_of_an_unknown_model_wakes_nobody() -> None:
    assert Store().observe(builders.pod()) == ()


def test_a_pod_that_is_relabelled_leaves_its_model(store: Store) -> None:
    store.observe(builders.pod())
    assert store.observe(builders.pod(model="debugging", version=2)) == (KEY,)
    assert store.gather(KEY).pods == ()


def test_a_relabelled_pod_that_ends_leaves_nothing_behind(store: Store) -> None:
    store.observe(builders.pod())
    store.observe(builders.pod(model="debugging", version=2))
    forget(store, builders.pod(), "3")
    assert store.gather(KEY).pods == ()


def test_only_the_version_of_a_pod_changed(store: Store) -> None:
    store.observe(builders.pod())
    assert store.observe(builders.pod(version=2)) == ()


# ---- the end of objects --------------------------------------------------------------------------------------


def test_late_news_does_not_raise_a_deleted_object(store: Store) -> None:
    store.observe(builders.pod(version=3))
    assert forget(store, builders.pod(), "5") == (KEY,)
    assert store.observe(builders.pod(version=4)) == ()
    assert store.gather(KEY).pods == ()


def test_the_end_may_come_before_the_beginning(store: Store) -> None:
    forget(store, builders.pod(), "5")
    store.observe(builders.pod(version=4))
    assert store.gather(KEY).pods == ()


def test_an_object_that_lost_its_labels_comes_back_with_them(store: Store) -> None:
    """To a watch with a label selector, losing the label is a deletion."""
    deployment = builders.child(version=3)
    store.observe(deployment)
    forget(store, deployment, "5")
    assert store.observe(builders.child(version=6)) == (KEY,)
    assert store.gather(KEY).child("Deployment") is not None


def test_an_object_that_came_back_before_the_news_of_its_end_stays(store: Store) -> None:
    store.observe(builders.child(version=6))
    assert forget(store, builders.child(), "5") == ()
    assert store.gather(KEY).child("Deployment") is not None


def test_what_is_gone_for_good_never_comes_back(store: Store) -> None:
    store.observe(builders.child(version=3))
    forget(store, builders.child())
    assert store.observe(builders.child(version=9)) == ()


def test_a_namesake_with_another_uid_is_somebody_else(store: Store) -> None:
    store.observe(builders.child(version=3))
    forget(store, builders.child())
    store.observe(builders.child(version=9, uid="another"))
    assert store.gather(KEY).child("Deployment").uid == "another"


# ---- children ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"])
def test_children_of_every_kind_are_gathered(store: Store, kind: str) -> None:
    assert store.observe(builders.child(kind)) == (KEY,)
    assert store.gather(KEY).child(kind).kind == kind


def test_the_status_of_a_child_wakes_nobody(store: Store) -> None:
    store.observe(builders.child())
    assert store.observe(builders.child(version=2, status={"readyReplicas": 1})) == ()


def test_pods_that_the_deployment_may_not_make_are_news(store: Store) -> None:
    store.observe(builders.child())
    refused = {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}
    assert store.observe(builders.child(version=2, status=refused)) == (KEY,)


def test_drift_of_a_child_is_news(store: Store) -> None:
    store.observe(builders.child())
    assert store.observe(builders.child(version=2, spec={"replicas": 5})) == (KEY,)


def test_a_child_whose_model_label_was_changed_still_wakes_its_model(store: Store) -> None:
    store.observe(builders.child())
    assert store.observe(builders.child(version=2, labels={names.MODEL_LABEL: "other"})) == (KEY,)


def test_a_foreign_service_of_the_same_name_is_known_by_name_only(store: Store) -> None:
    assert store.observe(builders.child("Service", ours=False)) == (KEY,)
    child = store.gather(KEY).child("Service")
    assert (child.model, child.manifest()) == ("", {})


def test_changes_of_a_foreign_service_wake_nobody(store: Store) -> None:
    store.observe(builders.child("Service", ours=False))
    assert store.observe(builders.child("Service", ours=False, version=2, spec={"ports": []})) == ()


def test_a_child_that_loses_our_labels_is_news_once(store: Store) -> None:
    store.observe(builders.child("Service"))
    assert store.observe(builders.child("Service", ours=False, version=2)) == (KEY,)
    assert store.observe(builders.child("Service", ours=False, version=3)) == ()


def test_a_child_that_begins_to_be_deleted_is_news(store: Store) -> None:
    store.observe(builders.child())
    assert store.observe(builders.child(version=2, deleting=True)) == (KEY,)


def test_the_end_of_a_child_wakes_its_model(store: Store) -> None:
    store.observe(builders.child())
    assert forget(store, builders.child(), "2") == (KEY,)


# ---- memories ------------------------------------------------------------------------------------------------


def test_a_refusal_is_gathered_until_the_object_is_accepted(store: Store) -> None:
    refusal = Refusal("Deployment", "m", "QuotaExceeded", "no", "hash", NOW)
    store.memories.refuse(KEY, refusal)
    assert store.gather(KEY).refusals == (refusal,)
    store.memories.accept(KEY, "Deployment", "m", "hash", frozenset())
    assert store.gather(KEY).refusals == ()


def test_what_the_server_keeps_different_is_remembered_until_it_is_not(store: Store) -> None:
    store.memories.accept(KEY, "Service", "m", "hash", frozenset({"spec.x"}))
    assert store.gather(KEY).stubborn == {"Service": ("hash", frozenset({"spec.x"}))}
    store.memories.accept(KEY, "Service", "m", "hash2", frozenset())
    assert store.gather(KEY).stubborn == {}


def test_sweeps_see_uid_and_version_of_everything(store: Store) -> None:
    store.observe(builders.pod(version=4))
    assert store.known("Pod") == {(NAMESPACE, "p"): ("pod-p", "4")}
    assert store.known("Model") == {(NAMESPACE, "m"): (builders.MODEL_UID, "1")}
    assert store.known("Service") == {}


# ---- any order -----------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[str, str, int]], dict[str, int]]:
    """What happened to one name: (what, uid, version) in order, and the survivor with its version."""
    happened: list[tuple[str, str, int]] = []
    alive: dict[str, int] = {}
    version = 0
    for life in range(draw(st.integers(1, 3))):
        uid = f"uid-{life}"
        for _ in range(draw(st.integers(1, 4))):
            version += 1
            happened.append(("seen", uid, version))
            alive = {uid: version}
        if draw(st.booleans()) or life < 2:
            version += 1
            happened.append(("gone", uid, version))
            alive = {}
    return happened, alive


@given(histories(), st.randoms(use_true_random=False), st.sampled_from(["Pod", "Deployment", "Model"]))
def test_any_order_of_news_ends_in_the_newest_version(history: Any, shuffler: Any, kind: str) -> None:
    """Watches, relists and answers to our own writes overtake one another and repeat themselves."""
    happened, alive = history
    told = happened + [event for event in happened if shuffler.random() < 0.5]
    shuffler.shuffle(told)
    store = Store()
    make = {"Pod": builders.pod, "Deployment": builders.child, "Model": builders.model}[kind]
    for what, uid, version in told:
        manifest = make(version=version, uid=uid)
        if what == "seen":
            store.observe(manifest)
        else:
            forget(store, manifest, str(version))
    expected = {uid: str(version) for uid, version in alive.items()}
    assert dict(store.known(kind).values()) == expected


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["m", "other"]), st.integers(1, 9), st.booleans()),
        max_size=30,
    )
)
def test_the_index_of_pods_agrees_with_the_pods(news: list[tuple[str, str, int, bool]]) -> None:
    store = Store()
    for model in ("m", "other"):
        store.observe(builders.model(model, uid=model))
    for name, model, version, gone in news:
        manifest = builders.pod(name, model=model, version=version)
        _ = forget(store, manifest, str(version)) if gone else store.observe(manifest)
    gathered = [pod.name for m in ("m", "other") for pod in store.gather(Key("Model", NAMESPACE, m)).pods]
    assert sorted(gathered) == sorted(name for _, name in store.known("Pod"))


# ---- Nodes ---------------------------------------------------------------------------------------------------


def test_a_node_that_falls_silent_concerns_the_models_on_it(store: Store) -> None:
    store.observe(builders.node("n1"))
    store.observe(builders.serving_pod(node="n1"))
    assert KEY in store.observe(builders.node("n1", lost=True, version=2))
    assert store.gather(KEY).lost_nodes == {"n1"}
    assert KEY in store.observe(builders.node("n1", version=3))
    assert store.gather(KEY).lost_nodes == frozenset()


def test_a_node_that_is_deleted_concerns_the_models_on_it(store: Store) -> None:
    store.observe(builders.node("n1"))
    store.observe(builders.serving_pod(node="n1"))
    assert store.forget("Node", "", "n1", "node-n1") == (KEY,)


def test_other_news_of_a_node_concern_no_model(store: Store) -> None:
    store.observe(builders.node("n1"))
    store.observe(builders.serving_pod(node="n1"))
    assert KEY not in store.observe(builders.node("n1", cordoned=True, version=2))
