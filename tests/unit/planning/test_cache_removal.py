"""spec.artifacts says Absent: what goes, when, and what stays."""

import pytest

from berth.planning.world import Refusal
from support import builders
from support.builders import GIB, URI
from support.cache_simulation import KEY, KILLED, CacheSimulation, failed, jobs_in

OTHER = "hf://org/mistral"
THIRD = "hf://org/qwen"


@pytest.fixture
def full() -> CacheSimulation:
    """A cluster whose ModelCache has what a Model wants."""
    cluster = CacheSimulation()
    cluster.add_model()
    cluster.settle()
    assert cluster.state() == "Present"
    return cluster


# ---- Absent -------------------------------------------------------------------------------------------------


def test_absent_removes_what_is_there(full: CacheSimulation) -> None:
    full.drop("Model", "m")
    full.declare({"uri": URI, "state": "Absent"})
    full.settle()
    assert (full.state(), full.volume, full.jobs()) == ("Absent", {}, [])
    assert (full.status["phase"], full.status["usedBytes"]) == ("Ready", 0)


def test_absent_of_what_was_never_there_is_absent() -> None:
    cluster = CacheSimulation()
    cluster.declare({"uri": URI, "state": "Absent"})
    cluster.settle()
    assert (cluster.state(), cluster.status["phase"]) == ("Absent", "Ready")


def test_absent_removes_what_an_attempt_may_have_left() -> None:
    cluster = failed(KILLED)
    cluster.drop("Model", "m")
    cluster.declare({"uri": URI, "state": "Absent"})
    cluster.settle()
    assert (cluster.state(), cluster.volume) == ("Absent", {})


def test_absent_ends_a_download_first_and_removes_then(downloading: CacheSimulation) -> None:
    downloading.drop("Model", "m")
    downloading.declare({"uri": URI, "state": "Absent"})
    plan = downloading.reconcile()
    assert jobs_in(plan) == [], "two programs in one folder would hinder each other"
    downloading.settle()
    assert (downloading.state(), downloading.volume) == ("Absent", {})


def test_absent_waits_for_the_models_and_names_them(full: CacheSimulation) -> None:
    full.declare({"uri": URI, "state": "Absent"})
    full.settle()
    entry = full.entries[URI]
    assert (entry["state"], entry["reason"], len(full.volume)) == ("Present", "InUse", 1)
    assert "used by m" in entry["message"]
    full.drop("Model", "m")
    full.settle()
    assert full.state() == "Absent"


def test_in_use_goes_with_its_cause(full: CacheSimulation) -> None:
    full.declare({"uri": URI, "state": "Absent"})
    full.settle()
    full.declare()
    full.settle()
    assert not {"reason", "message"} & full.entries[URI].keys()


def test_in_use_hides_no_failure() -> None:
    cluster = failed("!NotFound")
    cluster.declare({"uri": URI, "state": "Absent"})
    cluster.reconcile()
    assert (cluster.state(), cluster.entries[URI]["reason"]) == ("Failed", "NotFound")


def test_what_a_model_wants_again_before_it_is_removed_is_kept(full: CacheSimulation) -> None:
    full.drop("Model", "m")
    full.declare({"uri": URI, "state": "Absent"})
    (job,) = jobs_in(full.plan())
    full.store.memories.refuse(KEY, Refusal("Job", job["metadata"]["name"], "Forbidden", "no", "hash", full.now))
    full.reconcile()
    full.declare()
    full.add_model()
    full.settle()
    assert (full.state(), list(full.volume.values())) == ("Present", [10 * GIB])


def test_a_removal_that_fails_is_tried_again(full: CacheSimulation) -> None:
    full.drop("Model", "m")
    full.declare({"uri": URI, "state": "Absent"})
    full.reconcile()
    (job,) = full.jobs()
    full.step(job)
    (pod,) = full.pods_of(job)
    full.end(job, pod["metadata"]["name"], code=75, said=builders.said_failed("VolumeFailed", "I/O", passing=True))
    full.reconcile()
    assert (full.state(), full.entries[URI]["reason"]) == ("Removing", "VolumeFailed")
    assert full.status["usedBytes"] == 10 * GIB
    full.settle()
    assert full.state() == "Absent"
