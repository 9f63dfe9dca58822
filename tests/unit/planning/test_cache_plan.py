"""Where the decisions about a ModelCache lead when they are carried out."""

from dataclasses import replace
from datetime import timedelta

import pytest

from berth.api.model_cache import ModelCache
from berth.planning.cache_plan import decide_cache
from berth.planning.plan import Delete, Plan
from berth.planning.times import parse_time
from berth.planning.world import CLAIM
from support import builders
from support.builders import GIB, URI
from support.cache_simulation import (
    KEY,
    LOST,
    CacheSimulation,
    Source,
    bound,
    jobs_in,
)

OTHER = "hf://org/mistral"
THIRD = "hf://org/qwen"


@pytest.fixture
def cluster() -> CacheSimulation:
    """A cluster with a ModelCache that was made this moment."""
    return CacheSimulation()


@pytest.fixture
def downloading(cluster: CacheSimulation) -> CacheSimulation:
    """A cluster whose ModelCache has begun to download what a Model wants; half of it is there."""
    cluster.add_model()
    for _ in range(2):
        cluster.reconcile()
        cluster.bind_claim()
    cluster.run(2)
    cluster.reconcile()
    assert cluster.state() == "Downloading"
    return cluster


@pytest.fixture
def full(cluster: CacheSimulation) -> CacheSimulation:
    """A cluster whose ModelCache has what a Model wants."""
    cluster.add_model()
    cluster.settle()
    assert cluster.state() == "Present"
    return cluster


def condition(cluster: CacheSimulation, kind: str = "Ready") -> tuple[str, str]:
    found = next(one for one in cluster.status["conditions"] if one["type"] == kind)
    return found["status"], found["reason"]


# ---- a life -------------------------------------------------------------------------------------------------


def test_a_new_cache_gets_its_claim_and_its_guard(cluster: CacheSimulation) -> None:
    cluster.settle()
    assert sorted(kind for kind, _ in cluster.objects) == ["ModelCache", "NetworkPolicy", CLAIM]
    assert (cluster.status["phase"], condition(cluster)) == ("Ready", ("True", "AsDeclared"))
    assert (cluster.status["used"], cluster.status["present"]) == ("0 B of 100.0 GiB", "0/0")


def test_what_a_model_wants_is_downloaded(full: CacheSimulation) -> None:
    assert list(full.volume.values()) == [10 * GIB]
    assert full.entries[URI]["models"] == ["m"]
    assert (full.status["used"], full.status["present"]) == ("10.0 GiB of 100.0 GiB", "1/1")


def test_what_is_declared_is_downloaded_without_a_model(cluster: CacheSimulation) -> None:
    cluster.declare(URI)
    cluster.settle()
    assert (cluster.state(), cluster.entries[URI]["declared"]) == ("Present", True)


def test_two_models_of_the_same_artifact_share_one_download_and_one_copy(cluster: CacheSimulation) -> None:
    cluster.add_model("m")
    cluster.add_model("n")
    cluster.reconcile()
    cluster.bind_claim()
    assert len(jobs_in(cluster.reconcile())) == 1
    cluster.settle()
    assert (len(cluster.volume), cluster.entries[URI]["models"]) == (1, ["m", "n"])


def test_no_job_is_left_when_everything_is_there(full: CacheSimulation) -> None:
    """A finished Pod would keep the claim from being deleted."""
    assert full.jobs() == []


def test_a_full_cache_costs_no_writes(full: CacheSimulation) -> None:
    for _ in range(5):
        full.now += timedelta(hours=1)
        assert full.plan() == Plan()
    full.restart()
    assert full.plan() == Plan()


def test_a_cache_that_is_being_deleted_gets_no_write(full: CacheSimulation) -> None:
    full.add_model("n", OTHER)
    gone = replace(full.world(), subject=replace(full.world().subject, deleting=True))
    assert decide_cache(gone, full.now, full.policy) == Plan()


def test_the_status_has_the_shape_of_the_api(full: CacheSimulation) -> None:
    plain = {"spec": full.cache["spec"], "status": full.status}
    assert ModelCache.model_validate(plain).to_json()["status"] == full.status


def test_transitions_are_told_once(full: CacheSimulation) -> None:
    full.add_model("n", OTHER)
    first, second = full.reconcile(), full.reconcile()
    assert first.transition == ("Ready", "Provisioning", "Downloading")
    assert second.transition is None


# ---- what stays ---------------------------------------------------------------------------------------------


def test_deleting_a_model_keeps_its_artifact(full: CacheSimulation) -> None:
    full.drop("Model", "m")
    full.settle()
    assert (full.state(), list(full.volume.values())) == ("Present", [10 * GIB])
    assert "models" not in full.entries[URI]
    assert parse_time(full.entries[URI]["lastUsedAt"]) is not None


def test_a_model_that_comes_back_finds_its_artifact(full: CacheSimulation) -> None:
    full.drop("Model", "m")
    full.settle()
    full.add_model()
    assert jobs_in(full.reconcile()) == []
    assert "lastUsedAt" not in full.entries[URI], "it is used now"


def test_a_stopped_model_asks_for_no_download(cluster: CacheSimulation) -> None:
    cluster.add_model(state="Stopped")
    cluster.settle()
    assert (cluster.state(), cluster.volume) == ("Pending", {})
    cluster.add_model(state="Running")
    cluster.settle()
    assert cluster.state() == "Present"


def test_a_download_that_nobody_wants_any_more_ends_and_keeps_what_has_arrived(downloading: CacheSimulation) -> None:
    downloading.drop("Model", "m")
    downloading.settle()
    assert (downloading.jobs(), downloading.entries[URI]["bytesDone"]) == ([], 5 * GIB)
    assert (downloading.state(), downloading.entries[URI]["reason"]) == ("Pending", "NotWanted")
    assert downloading.status["phase"] == "Ready", "nothing is missing"
    downloading.add_model()
    downloading.settle()
    assert downloading.state() == "Present"


def test_what_nobody_wants_and_left_nothing_is_forgotten(cluster: CacheSimulation) -> None:
    cluster.sources[URI] = Source(ends=["!NotFound"] * 99)
    cluster.add_model()
    cluster.reconcile()
    cluster.bind_claim()
    cluster.reconcile()
    cluster.run()
    cluster.reconcile()
    assert cluster.state() == "Failed"
    cluster.drop("Model", "m")
    cluster.settle()
    assert cluster.entries == {}


# ---- progress -----------------------------------------------------------------------------------------------


def test_a_running_download_says_how_far_it_is(downloading: CacheSimulation) -> None:
    entry = downloading.entries[URI]
    assert (entry["percent"], entry["bytesDone"], entry["bytes"]) == (50, 5 * GIB, 10 * GIB)
    assert entry["message"] == "5.0 GiB of 10.0 GiB are there, 1.0 GiB a second, about 5 s left"
    assert downloading.status["phase"] == "Provisioning"


def test_progress_alone_is_written_every_two_seconds_at_most(downloading: CacheSimulation) -> None:
    (pod,) = downloading.world().progress
    for percent in (60, 70):
        downloading.store.memories.progress[KEY.namespace, pod] = builders.progress(percent)
        plan = downloading.reconcile()
        assert (plan.status, plan.look_again) == (None, 2)
    downloading.now += timedelta(seconds=2)
    downloading.reconcile()
    assert downloading.entries[URI]["percent"] == 70


def test_more_than_progress_is_written_at_once(downloading: CacheSimulation) -> None:
    downloading.run()
    downloading.reconcile()
    assert downloading.state() == "Present"


def test_a_download_that_cannot_be_asked_is_a_download_all_the_same(downloading: CacheSimulation) -> None:
    downloading.restart()  # what downloads said is forgotten
    downloading.reconcile()
    assert (downloading.state(), downloading.entries[URI]["percent"]) == ("Downloading", 50)
    downloading.settle()
    assert downloading.state() == "Present"


# ---- the end of a Job ---------------------------------------------------------------------------------------


def test_the_end_of_a_job_is_recorded_before_the_job_goes(downloading: CacheSimulation) -> None:
    downloading.run()
    (job,) = downloading.jobs()
    recorded = downloading.reconcile()
    assert recorded.changes == ()
    assert downloading.entries[URI]["job"] == job["metadata"]["uid"]
    assert recorded.look_again == 0
    (deleted,) = downloading.reconcile().changes
    assert isinstance(deleted, Delete)
    assert (deleted.uid, downloading.jobs()) == (job["metadata"]["uid"], [])


def test_an_end_is_counted_and_told_once(downloading: CacheSimulation) -> None:
    downloading.run()
    first, second = downloading.reconcile(), downloading.reconcile()
    (end,) = first.downloads
    assert (end.reason, end.bytes_fetched) == ("", 5 * GIB)
    assert [note.reason for note in first.notes] == ["Downloaded"]
    assert (second.downloads, second.notes) == ((), ())


def test_a_lost_result_runs_again_and_finds_its_files(cluster: CacheSimulation) -> None:
    cluster.sources[URI] = Source(ends=[LOST])
    cluster.add_model()
    cluster.settle()
    assert cluster.state() == "Present"
    assert list(cluster.volume.values()) == [10 * GIB]


def test_while_a_result_is_lost_its_bytes_count(downloading: CacheSimulation) -> None:
    downloading.sources[URI].ends[:] = [LOST]
    downloading.run()
    downloading.reconcile()
    assert (downloading.state(), downloading.entries[URI]["reason"]) == ("Pending", "ResultLost")
    assert downloading.status["usedBytes"] == 10 * GIB


def test_a_job_that_somebody_deletes_is_made_again(downloading: CacheSimulation) -> None:
    downloading.drop("Job", downloading.jobs()[0]["metadata"]["name"])
    downloading.reconcile()
    assert downloading.entries[URI]["bytesDone"] == 5 * GIB, "what has arrived is still there"
    downloading.settle()
    assert downloading.state() == "Present"


def test_a_job_whose_status_was_never_written_is_looked_at_although_nobody_wants_it(cluster: CacheSimulation) -> None:
    cluster.add_model()
    cluster.reconcile()
    cluster.bind_claim()
    cluster.reconcile(cut_off_after=1)
    assert (len(cluster.jobs()), cluster.entries[URI]["state"]) == (1, "Pending")
    cluster.write_status({"observedGeneration": -1})
    cluster.drop("Model", "m")
    cluster.settle()
    assert cluster.jobs() == []


def test_a_job_that_lingers_is_not_recorded_twice(downloading: CacheSimulation) -> None:
    """Somebody's finalizer keeps the Job of a download while its artifact is removed."""
    downloading.run()
    downloading.reconcile()
    (job,) = downloading.jobs()
    downloading.keep({**job, "metadata": {**job["metadata"], "deletionTimestamp": builders.ago()}})
    downloading.drop("Model", "m")
    downloading.declare({"uri": URI, "state": "Absent"})
    assert jobs_in(downloading.reconcile()) == []
    assert downloading.state() == "Removing"
    downloading.drop("Job", job["metadata"]["name"])
    downloading.settle()
    assert (downloading.state(), downloading.volume) == ("Absent", {})


# ---- turns --------------------------------------------------------------------------------------------------


def test_no_more_downloads_run_than_allowed() -> None:
    cluster = bound(maxParallelDownloads=2)
    cluster.declare(URI, OTHER, THIRD)
    cluster.reconcile()
    assert len(cluster.downloads()) == 2
    (waiting,) = [entry for entry in cluster.entries.values() if entry["state"] == "Pending"]
    assert waiting["reason"] == "WaitingForSlot"
    cluster.settle()
    assert cluster.status["present"] == "3/3"


def test_the_most_important_model_comes_first_then_the_oldest_and_what_is_only_declared_last() -> None:
    cluster = bound(maxParallelDownloads=1)
    cluster.declare("hf://org/declared")
    cluster.now += timedelta(seconds=5)
    cluster.add_model("old", "hf://org/old")
    cluster.now += timedelta(seconds=5)
    cluster.add_model("young", "hf://org/young")
    cluster.add_model("urgent", "hf://org/urgent", priority=900)
    turns = []
    while len(turns) < 4:
        cluster.reconcile()
        turns += [uri for uri in cluster.downloads() if uri not in turns]
        cluster.run()
    assert turns == ["hf://org/urgent", "hf://org/old", "hf://org/young", "hf://org/declared"]


def test_raising_the_number_starts_more_at_once() -> None:
    cluster = bound(maxParallelDownloads=1)
    cluster.declare(URI, OTHER)
    cluster.reconcile()
    cluster.edit(maxParallelDownloads=2)
    assert len(jobs_in(cluster.reconcile())) == 1
