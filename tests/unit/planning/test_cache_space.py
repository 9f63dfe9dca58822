"""A limit is kept, and what makes room is what nobody wants."""

from datetime import timedelta

import pytest

from berth.planning.plan import Plan
from support import builders
from support.builders import GIB, URI
from support.cache_simulation import CacheSimulation, Source, arguments, bound, failed, has_ended, jobs_in, option

OTHER = "hf://org/mistral"
THIRD = "hf://org/qwen"


# ---- the limit ----------------------------------------------------------------------------------------------


def test_a_job_may_take_what_the_others_leave() -> None:
    cluster = bound(limit="25Gi")
    cluster.add_model()
    cluster.settle()
    cluster.add_model("n", OTHER)
    (job,) = jobs_in(cluster.reconcile())
    assert option(job, "--limit") == str(15 * GIB)


def test_without_a_limit_the_job_has_none() -> None:
    cluster = CacheSimulation()
    cluster.settle()
    cluster.add_model()
    (job,) = jobs_in(cluster.plan())
    assert "--limit" not in arguments(job)


def test_another_download_waits_until_the_size_of_the_first_is_known() -> None:
    cluster = bound(limit="25Gi")
    cluster.declare(URI, OTHER)
    cluster.reconcile()
    assert len(cluster.downloads()) == 1
    assert {entry["reason"] for entry in cluster.entries.values()} == {"Downloading", "WaitingForSpace"}
    cluster.run(2)
    (job,) = jobs_in(cluster.reconcile())
    assert option(job, "--limit") == str(15 * GIB), "the other half of the first is still to come"


def test_what_is_known_to_be_too_large_is_refused_before_its_first_byte() -> None:
    cluster = bound(limit="25Gi")
    cluster.sources[URI] = Source(30 * GIB)
    cluster.add_model()
    cluster.settle()
    entry = cluster.entries[URI]
    assert (entry["state"], entry["reason"], cluster.volume) == ("Failed", "LimitExceeded", {})
    assert "the files have 30.0 GiB, and spec.limit leaves 25.0 GiB: raise spec.limit" in entry["message"]
    assert cluster.plan() == Plan(), "nothing but a change can help"


def test_what_was_too_large_comes_as_soon_as_there_is_room() -> None:
    cluster = bound(limit="25Gi")
    cluster.sources[URI] = Source(30 * GIB)
    cluster.add_model()
    cluster.settle()
    cluster.edit(limit="35Gi")
    assert len(jobs_in(cluster.reconcile())) == 1
    cluster.settle()
    assert cluster.state() == "Present"


def test_a_download_that_meets_its_limit_without_knowing_its_size_is_not_repeated_for_ever() -> None:
    """A server that names no length: only the bytes themselves tell that there are too many."""
    cluster = bound(limit="25Gi")
    cluster.add_model()
    cluster.reconcile()
    (job,) = cluster.jobs()
    cluster.step(job)
    (pod,) = cluster.pods_of(job)
    words = builders.said_failed("LimitExceeded", "more than the limit", bytesPresent=5 * GIB)
    cluster.end(job, pod["metadata"]["name"], code=65, said=words)
    cluster.reconcile()
    cluster.reconcile()
    plan = cluster.reconcile()
    assert (cluster.state(), jobs_in(plan)) == ("Failed", [])
    assert plan.look_again is not None


def test_a_new_attempt_that_still_shows_its_failure_takes_its_room() -> None:
    cluster = failed("!NotFound", limit="25Gi")
    cluster.now += timedelta(seconds=601)
    cluster.reconcile()
    assert (cluster.state(), cluster.downloads()) == ("Failed", [URI])
    cluster.declare(OTHER)
    assert jobs_in(cluster.reconcile()) == []
    assert cluster.entries[OTHER]["reason"] == "WaitingForSpace"


# ---- eviction -----------------------------------------------------------------------------------------------


def crowded(**spec: object) -> CacheSimulation:
    """A cluster whose volume has two artifacts of 10 GiB that nobody uses, the first unused for longer."""
    cluster = bound(**{"limit": "25Gi", "eviction": "LRU", **spec})
    for name, uri in (("a", URI), ("b", OTHER)):
        cluster.add_model(name, uri)
        cluster.settle()
    for name in ("a", "b"):
        cluster.drop("Model", name)
        cluster.now += timedelta(hours=1)
        cluster.settle()
    return cluster


def test_what_is_unused_longest_makes_room() -> None:
    cluster = crowded()
    cluster.add_model("c", THIRD)
    cluster.settle()
    assert {uri: cluster.state(uri) for uri in (URI, OTHER, THIRD)} == {URI: "", OTHER: "Present", THIRD: "Present"}
    assert sum(cluster.volume.values()) == 20 * GIB


def test_an_eviction_is_told() -> None:
    cluster = crowded()
    cluster.add_model("c", THIRD)
    told = []
    for _ in range(8):
        cluster.now += timedelta(seconds=1)
        told += [note.message for note in cluster.reconcile().notes if note.reason == "Evicted"]
        cluster.run()
    assert told == [f"{URI} makes room for {THIRD}"]


def test_nothing_starts_until_what_makes_room_is_gone() -> None:
    cluster = crowded()
    cluster.add_model("c", THIRD)
    for _ in range(30):
        cluster.now += timedelta(seconds=1)
        cluster.reconcile()
        cluster.run(1)
        removing = any(not has_ended(job) and not option(job, "--uri") for job in cluster.jobs())
        if removing:
            assert cluster.downloads() == []
            assert cluster.entries[THIRD]["reason"] == "WaitingForSpace"
            assert cluster.status["usedBytes"] == 20 * GIB
    assert cluster.state(THIRD) == "Present"


def test_without_eviction_nothing_goes_and_the_way_out_is_told() -> None:
    cluster = crowded(eviction="None")
    cluster.add_model("c", THIRD)
    cluster.settle()
    assert sorted(cluster.volume.values()) == [10 * GIB, 10 * GIB]
    assert "spec.eviction LRU would remove what nobody refers to" in cluster.entries[THIRD]["message"]


@pytest.mark.parametrize("state", ["Running", "Stopped"])
def test_what_a_model_refers_to_stays_even_when_the_model_is_stopped(state: str) -> None:
    cluster = crowded()
    cluster.add_model("a", URI, state=state)
    cluster.add_model("c", THIRD)
    cluster.settle()
    assert (cluster.state(URI), cluster.state(OTHER)) == ("Present", "")


def test_what_is_declared_stays() -> None:
    cluster = crowded()
    cluster.declare(URI)
    cluster.add_model("c", THIRD)
    cluster.settle()
    assert (cluster.state(URI), cluster.state(OTHER)) == ("Present", "")


def test_nothing_goes_when_even_all_would_not_do() -> None:
    cluster = crowded()
    cluster.sources[THIRD] = Source(30 * GIB)
    cluster.add_model("c", THIRD)
    cluster.settle()
    assert sorted(cluster.volume.values()) == [10 * GIB, 10 * GIB]
    assert cluster.state(THIRD) == "Failed"


def test_a_full_volume_makes_room_as_a_limit_does() -> None:
    cluster = crowded(limit=None)
    cluster.sources[THIRD] = Source(ends=["!NoSpace"])
    cluster.add_model("c", THIRD)
    cluster.reconcile()
    cluster.run()
    cluster.settle()
    assert cluster.state(THIRD) == "Present"
