"""Who is looked at when something changes: everybody whom it concerns, and nobody else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.controllers.store import Key, Keys, Store
from berth.planning import names
from support import builders
from support.builders import CACHE, NAMESPACE, URI

MODEL = Key("Model", NAMESPACE, "m")
KEY = Key("ModelCache", NAMESPACE, CACHE)


@pytest.fixture
def store() -> Store:
    """A store with a ModelCache and a Model whose weights belong to it."""
    store = Store()
    store.observe(builders.model_cache())
    store.observe(builders.model(spec=builders.cached_spec()))
    return store


def forget(store: Store, manifest: dict[str, Any], version: str = "99") -> Keys:
    metadata = manifest["metadata"]
    return store.forget(manifest["kind"], metadata.get("namespace", ""), metadata["name"], metadata["uid"], version)


def cache(version: int, *entries: dict[str, Any], **status: Any) -> dict[str, Any]:
    return builders.model_cache(version=version, status={"artifacts": list(entries), **status})


# ---- a Model and its cache ---------------------------------------------------------------------------------------


def test_a_new_model_wakes_its_cache() -> None:
    store = Store()
    store.observe(builders.model_cache())
    assert store.observe(builders.model(spec=builders.cached_spec())) == (MODEL, KEY)


def test_a_model_without_weights_to_download_concerns_no_cache() -> None:
    store = Store()
    store.observe(builders.model_cache())
    assert store.observe(builders.model(spec=builders.cached_spec("pvc://claim/path"))) == (MODEL,)
    assert store.gather(KEY).models == ()


def test_a_model_may_be_there_before_its_cache() -> None:
    store = Store()
    assert store.observe(builders.model(spec=builders.cached_spec())) == (MODEL,)
    assert store.gather(MODEL).cache is None
    assert store.observe(builders.model_cache()) == (KEY, MODEL)
    assert store.gather(MODEL).cache is not None
    assert [model.name for model in store.gather(KEY).models] == ["m"]


def test_a_model_that_changes_to_another_cache_wakes_both(store: Store) -> None:
    store.observe(builders.model_cache("big", uid="big"))
    spec = builders.cached_spec() | {"source": {"uri": URI, "cache": "big"}}
    big = Key("ModelCache", NAMESPACE, "big")
    assert store.observe(builders.model(spec=spec, version=2, generation=2)) == (MODEL, KEY, big)
    assert store.gather(KEY).models == ()
    assert store.gather(MODEL).cache.name == "big"


def test_a_model_whose_source_is_mounted_now_leaves_its_cache(store: Store) -> None:
    spec = builders.cached_spec("pvc://claim/path")
    assert store.observe(builders.model(spec=spec, version=2, generation=2)) == (MODEL, KEY)
    assert store.gather(KEY).models == ()


def test_the_status_of_a_model_is_nothing_to_its_cache(store: Store) -> None:
    spec = builders.cached_spec()
    assert store.observe(builders.model(spec=spec, version=2, status={"phase": "Loading"})) == (MODEL,)


def test_a_model_that_begins_to_be_deleted_and_one_that_is_gone_wake_the_cache(store: Store) -> None:
    leaving = builders.model(spec=builders.cached_spec(), version=2, deleting=True)
    assert store.observe(leaving) == (MODEL, KEY)
    assert forget(store, leaving) == (KEY,)
    assert store.gather(KEY).models == ()


def test_models_wait_for_a_cache_in_their_own_namespace_only(store: Store) -> None:
    elsewhere = builders.model_cache(uid="elsewhere")
    elsewhere["metadata"]["namespace"] = "other"
    assert store.observe(elsewhere) == (Key("ModelCache", "other", CACHE),)


def test_a_cache_that_is_gone_wakes_its_models(store: Store) -> None:
    assert forget(store, builders.model_cache()) == (MODEL,)
    assert store.gather(MODEL).cache is None


# ---- what a cache tells its Models --------------------------------------------------------------------------------


def test_news_of_an_artifact_wakes_the_models_that_refer_to_it(store: Store) -> None:
    store.observe(builders.model("n", uid="n", spec=builders.cached_spec("hf://org/other")))
    mine = builders.entry(state="Downloading", models=["m"])
    assert store.observe(cache(2, mine)) == (KEY, MODEL)
    assert store.observe(cache(3, mine, builders.entry("hf://org/other", models=["n"]))) == (
        KEY,
        Key("Model", NAMESPACE, "n"),
    )


def test_an_artifact_that_vanishes_from_the_status_wakes_its_models(store: Store) -> None:
    store.observe(cache(2, builders.entry(models=["m"])))
    assert store.observe(cache(3)) == (KEY, MODEL)


def test_models_that_are_named_and_do_not_exist_wake_nobody(store: Store) -> None:
    assert store.observe(cache(2, builders.entry(models=["gone"]))) == (KEY,)


@pytest.mark.parametrize("change", [{"phase": "Failed"}, {"claim": "other"}, {"accessMode": "ReadWriteMany"}])
def test_what_decides_how_a_cache_is_mounted_wakes_all_its_models(store: Store, change: dict[str, Any]) -> None:
    assert store.observe(cache(2, **change)) == (KEY, MODEL)


def test_numbers_of_a_cache_wake_none_of_its_models(store: Store) -> None:
    assert store.observe(cache(2, usedBytes=5, phase="Provisioning")) == (KEY,)


# ---- claims, Jobs, policies, Pods, nodes -----------------------------------------------------------------------------


def test_the_claim_that_a_cache_uses_wakes_it_whoever_made_it(store: Store) -> None:
    assert store.observe(builders.claim(phase="Pending")) == (KEY,)
    assert store.observe(builders.claim(version=2)) == (KEY,)
    named = {"storage": {"claim": "weights"}}
    store.observe(builders.model_cache(version=2, generation=2, spec=named))
    assert store.observe(builders.claim("weights", cache="")) == (KEY,)
    assert store.gather(KEY).claim.name == "weights"
    assert store.observe(builders.claim(version=3, phase="Lost")) == (), "it is nobody's now"


def test_two_caches_may_share_a_claim(store: Store) -> None:
    for name in ("one", "two"):
        store.observe(builders.model_cache(name, uid=name, spec={"storage": {"claim": "weights"}}))
    woken = store.observe(builders.claim("weights", cache=""))
    assert woken == (Key("ModelCache", NAMESPACE, "one"), Key("ModelCache", NAMESPACE, "two"))


def test_claims_of_others_wake_nobody(store: Store) -> None:
    assert store.observe(builders.claim("data", cache="")) == ()


def test_jobs_are_gathered_and_their_ends_are_news(store: Store) -> None:
    assert store.observe(builders.job("a")) == (KEY,)
    assert store.observe(builders.job("a", version=2)) == ()
    assert store.observe(builders.job("a", version=3, ended="Complete")) == (KEY,)
    assert [job.name for job in store.gather(KEY).jobs] == [builders.job("a")["metadata"]["name"]]
    assert forget(store, builders.job("a")) == (KEY,)
    assert store.gather(KEY).jobs == ()


def test_jobs_of_a_deleted_cache_of_the_same_name_are_not_gathered(store: Store) -> None:
    stale = builders.job("a")
    stale["metadata"]["ownerReferences"][0]["uid"] = "predecessor"
    store.observe(stale)
    assert store.gather(KEY).jobs == ()


def test_the_policy_of_a_cache_wakes_it_even_when_its_labels_are_gone(store: Store) -> None:
    name = f"modelcache-{CACHE}"
    assert KEY in store.observe(builders.child("NetworkPolicy", name, labels={names.CACHE_LABEL: CACHE}))
    assert KEY in store.observe(builders.child("NetworkPolicy", name, version=2, ours=False))
    assert store.gather(KEY).policy.name == name


def test_a_server_on_the_volume_concerns_its_model_and_the_cache(store: Store) -> None:
    assert store.observe(builders.serving_pod(labels={names.CACHE_LABEL: CACHE})) == (MODEL, KEY)
    assert [pod.name for pod in store.gather(KEY).pods] == ["p"]
    store.observe(builders.serving_pod(version=2))
    assert store.gather(KEY).pods == ()


def test_a_download_concerns_the_cache_only(store: Store) -> None:
    assert store.observe(builders.download_pod()) == (KEY,)
    assert store.gather(MODEL).pods == ()


def test_nodes_wake_the_caches_when_their_gpus_labels_or_cordons_change(store: Store) -> None:
    concerned = (Key("Node", "", "n1"), KEY)
    assert store.observe(builders.node()) == concerned
    assert store.observe(builders.node(version=2)) == ()
    assert store.observe(builders.node(version=3, gpus=1)) == concerned
    assert store.observe(builders.node(version=4, gpus=1, cordoned=True)) == concerned
    assert forget(store, builders.node()) == (KEY,)
    assert store.gather(KEY).nodes == ()


def test_the_end_of_a_node_does_not_remove_its_successor(store: Store) -> None:
    successor = builders.node(version=9)
    successor["metadata"]["uid"] = "successor"
    store.observe(builders.node())
    store.observe(successor)
    assert forget(store, builders.node(), "5") == ()
    assert [node.name for node in store.gather(KEY).nodes] == ["n1"]


def test_late_news_does_not_raise_a_node_that_is_gone(store: Store) -> None:
    store.observe(builders.node(version=3))
    forget(store, builders.node(), "5")
    assert store.observe(builders.node(version=4)) == ()
    assert store.gather(KEY).nodes == ()


# ---- any order ------------------------------------------------------------------------------------------------------

_SPECS = st.sampled_from(
    [
        builders.spec(),
        builders.cached_spec(),
        builders.spec(source={"uri": URI, "cache": "big"}),
        builders.cached_spec("pvc://claim/path"),
    ]
)
_NEWS = st.one_of(
    st.tuples(st.just("Model"), st.sampled_from("mn"), _SPECS, st.booleans()),
    st.tuples(
        st.just("ModelCache"), st.sampled_from([CACHE, "big"]), st.just({"storage": {"size": "1Gi"}}), st.booleans()
    ),
)


@given(st.lists(_NEWS, max_size=20))
def test_models_and_caches_always_agree_on_who_belongs_to_whom(news: list[tuple[str, str, Any, bool]]) -> None:
    store, specs = Store(), {}
    for version, (kind, name, spec, gone) in enumerate(news, 1):
        shape = builders.model if kind == "Model" else builders.model_cache
        manifest = shape(name, spec=spec, version=version, generation=version, uid=f"{name}-{version}")
        known = dict(store.known(kind)).get((NAMESPACE, name))
        if gone and known:
            store.forget(kind, NAMESPACE, name, known[0])
            specs.pop((kind, name), None)
        elif not gone:
            store.observe(manifest)
            specs[kind, name] = spec
    belongs = {name: wanted_cache(spec) for (kind, name), spec in specs.items() if kind == "Model"}
    for key in store.all_keys():
        world = store.gather(key)
        if key.kind == "Model":
            there = ("ModelCache", belongs[key.name]) in specs
            assert (world.cache.name if world.cache else None) == (belongs[key.name] if there else None)
        else:
            assert [one.name for one in world.models] == sorted(m for m, cache in belongs.items() if cache == key.name)


def wanted_cache(spec: dict[str, Any]) -> str | None:
    source = spec.get("source") or {}
    return source.get("cache", CACHE) if source.get("uri") == URI else None
