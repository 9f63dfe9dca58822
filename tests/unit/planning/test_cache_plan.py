"""Where the decisions about a ModelCache lead when they are carried out."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.api.model_cache import ModelCache
from berth.planning.cache_plan import decide_cache
from berth.planning.policy import Policy
from berth.planning.world import CLAIM, Apply, Delete, Plan, Refusal, parse_time
from support import builders
from support.builders import GIB, URI
from support.cache_simulation import KEY, KILLED, LOST, CacheSimulation, Source, arguments, has_ended, jobs_in, option

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
    run(cluster, steps=2)
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


def run(cluster: CacheSimulation, steps: int = 3) -> None:
    """The Jobs go on."""
    for _ in range(steps):
        for job in cluster.jobs():
            cluster.step(job)


def condition(cluster: CacheSimulation, kind: str = "Ready") -> tuple[str, str]:
    found = next(one for one in cluster.status["conditions"] if one["type"] == kind)
    return found["status"], found["reason"]


# ---- a life ---------------------------------------------------------------------------------------------------------


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


# ---- what stays -----------------------------------------------------------------------------------------------------


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
    run(cluster)
    cluster.reconcile()
    assert cluster.state() == "Failed"
    cluster.drop("Model", "m")
    cluster.settle()
    assert cluster.entries == {}


# ---- progress -------------------------------------------------------------------------------------------------------


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
    run(downloading)
    downloading.reconcile()
    assert downloading.state() == "Present"


def test_a_download_that_cannot_be_asked_is_a_download_all_the_same(downloading: CacheSimulation) -> None:
    downloading.restart()  # what downloads said is forgotten
    downloading.reconcile()
    assert (downloading.state(), downloading.entries[URI]["percent"]) == ("Downloading", 50)
    downloading.settle()
    assert downloading.state() == "Present"


# ---- the end of a Job -------------------------------------------------------------------------------------------------


def test_the_end_of_a_job_is_recorded_before_the_job_goes(downloading: CacheSimulation) -> None:
    run(downloading)
    (job,) = downloading.jobs()
    recorded = downloading.reconcile()
    assert recorded.changes == ()
    assert downloading.entries[URI]["job"] == job["metadata"]["uid"]
    assert recorded.look_again == 0
    (deleted,) = downloading.reconcile().changes
    assert isinstance(deleted, Delete)
    assert (deleted.uid, downloading.jobs()) == (job["metadata"]["uid"], [])


def test_an_end_is_counted_and_told_once(downloading: CacheSimulation) -> None:
    run(downloading)
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
    run(downloading)
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
    run(downloading)
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


# ---- turns ------------------------------------------------------------------------------------------------------------


def bound(**spec: object) -> CacheSimulation:
    """A cluster whose volume is there, so that downloads may begin."""
    cluster = CacheSimulation(**spec)
    cluster.settle()
    return cluster


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
        run(cluster)
    assert turns == ["hf://org/urgent", "hf://org/old", "hf://org/young", "hf://org/declared"]


def test_raising_the_number_starts_more_at_once() -> None:
    cluster = bound(maxParallelDownloads=1)
    cluster.declare(URI, OTHER)
    cluster.reconcile()
    cluster.edit(maxParallelDownloads=2)
    assert len(jobs_in(cluster.reconcile())) == 1


# ---- failures -----------------------------------------------------------------------------------------------------------


def failed(*ends: str, **spec: object) -> CacheSimulation:
    """A cluster in which a download has failed so often."""
    cluster = bound(**spec)
    cluster.sources[URI] = Source(ends=list(ends))
    cluster.add_model()
    while cluster.sources[URI].ends:
        cluster.reconcile()
        run(cluster)
        cluster.now += timedelta(seconds=(cluster.reconcile().look_again or 0))
        if cluster.sources[URI].ends:
            cluster.reconcile()
            cluster.now = parse_time(cluster.entries[URI]["retryAt"]) or cluster.now
    cluster.reconcile()
    return cluster


def wait_of(cluster: CacheSimulation) -> float:
    entry = cluster.entries[URI]
    return (parse_time(entry["retryAt"]) - parse_time(entry["failedAt"])).total_seconds()


def test_what_may_pass_is_pending_and_tried_again_by_itself() -> None:
    cluster = failed("ConnectionCut")
    entry = cluster.entries[URI]
    assert (entry["state"], entry["reason"], entry["message"]) == ("Pending", "ConnectionCut", "it fails")
    assert cluster.status["phase"] == "Provisioning"
    assert wait_of(cluster) == cluster.policy.retry_first
    assert cluster.plan().look_again == pytest.approx(30)
    cluster.settle()
    assert cluster.state() == "Present"
    assert not {"attempt", "failedAt", "retryAt", "inputs"} & cluster.entries[URI].keys()


def test_the_wait_doubles_up_to_a_longest_one() -> None:
    waits = [wait_of(failed(*["ConnectionCut"] * times)) for times in (1, 2, 3, 8)]
    assert waits == [30, 60, 120, 600]


def test_what_a_person_has_to_mend_is_failed_and_tried_again_all_the_same() -> None:
    cluster = failed("!NotFound")
    assert (cluster.state(), cluster.entries[URI]["reason"]) == ("Failed", "NotFound")
    assert wait_of(cluster) == 600
    cluster.settle()
    assert cluster.state() == "Present"


def test_a_model_that_fails_for_its_weights_does_not_fail_the_cache() -> None:
    cluster = failed("!NotFound")
    assert cluster.status["phase"] == "Ready"
    assert "could not be downloaded: it fails" in cluster.status["conditions"][0]["message"]


def test_what_is_declared_and_fails_fails_the_cache() -> None:
    cluster = failed("!NotFound")
    cluster.declare(URI)
    cluster.reconcile()
    assert (cluster.status["phase"], condition(cluster, "Stalled")) == ("Failed", ("True", "NotFound"))
    cluster.settle()
    assert cluster.status["phase"] == "Ready"


def test_a_failure_warns_once_however_often_it_repeats() -> None:
    cluster = bound()
    cluster.sources[URI] = Source(ends=["ConnectionCut"] * 4)
    cluster.add_model()
    told = []
    for _ in range(40):
        cluster.now += timedelta(seconds=60)
        told += [note.reason for note in cluster.reconcile().notes]
        run(cluster, steps=1)
    assert told == ["ConnectionCut", "Downloaded"]


def test_a_failure_stays_in_sight_until_a_new_attempt_comes_further() -> None:
    cluster = failed("!NotFound")
    cluster.now += timedelta(seconds=601)
    for _ in range(2):
        cluster.reconcile()
        assert (cluster.state(), cluster.entries[URI]["reason"]) == ("Failed", "NotFound")
        run(cluster, steps=1)
    assert cluster.downloads() == [URI]
    cluster.reconcile()
    assert cluster.state() == "Downloading", "it has got to its bytes"


@pytest.mark.parametrize(
    "mend",
    [
        lambda cluster: cluster.add_model("n"),
        lambda cluster: cluster.edit(limit="90Gi"),
        lambda cluster: cluster.edit(podTemplate={"spec": {"hostAliases": [{"ip": "198.18.0.1"}]}}),
        lambda cluster: cluster.add_model(source={"uri": URI, "secretRef": {"name": "token"}}),
    ],
    ids=["model", "limit", "podTemplate", "secret"],
)
def test_a_change_of_what_the_attempt_was_made_from_starts_another_at_once(mend: object) -> None:
    cluster = failed("!NotFound")
    assert jobs_in(cluster.reconcile()) == []
    mend(cluster)
    assert len(jobs_in(cluster.reconcile())) == 1
    assert cluster.reconcile().status is None


def test_a_change_while_the_attempt_runs_counts_as_a_change_once_it_has_failed() -> None:
    cluster = bound()
    cluster.sources[URI] = Source(ends=["!TokenMissing"])
    cluster.add_model()
    cluster.reconcile()
    run(cluster, steps=2)
    cluster.add_model(source={"uri": URI, "secretRef": {"name": "token"}})
    run(cluster)
    cluster.reconcile()
    assert cluster.state() == "Failed"
    cluster.reconcile()
    (job,) = jobs_in(cluster.reconcile())
    assert "token" in str(job["spec"]["template"]["spec"]["containers"][0]["env"])


def test_a_job_that_cannot_begin_is_made_anew_from_what_was_mended() -> None:
    cluster = bound()
    cluster.add_model(source={"uri": URI, "secretRef": {"name": "misspelt"}})
    cluster.reconcile()
    (job,) = cluster.jobs()
    words = 'secret "misspelt" not found'
    pod = builders.download_pod(
        job_uid=job["metadata"]["uid"], waiting="CreateContainerConfigError", message=words, created=0
    )
    cluster.keep(pod)
    cluster.reconcile()
    assert (cluster.state(), cluster.entries[URI]["reason"]) == ("Downloading", "SecretNotFound")
    cluster.now += timedelta(seconds=cluster.policy.config_patience)
    cluster.reconcile()
    assert cluster.state() == "Failed"
    cluster.add_model(source={"uri": URI, "secretRef": {"name": "right"}})
    cluster.reconcile()
    assert cluster.jobs() == []
    cluster.settle()
    assert cluster.state() == "Present"


def test_a_download_that_has_begun_is_not_interrupted_by_a_change(downloading: CacheSimulation) -> None:
    (job,) = downloading.jobs()
    downloading.add_model("n")
    downloading.reconcile()
    assert [one["metadata"]["uid"] for one in downloading.jobs()] == [job["metadata"]["uid"]]


def test_a_killed_download_goes_on_from_where_it_was() -> None:
    cluster = failed(KILLED)
    entry = cluster.entries[URI]
    assert (entry["state"], entry["reason"]) == ("Pending", "ProvisionerFailed")
    assert entry["message"].endswith("It is tried again")


def test_a_job_that_the_api_server_refuses_is_tried_again_later() -> None:
    cluster = bound()
    cluster.add_model()
    (job,) = jobs_in(cluster.plan())
    refusal = Refusal("Job", job["metadata"]["name"], "QuotaExceeded", "no more Pods", "hash", cluster.now)
    cluster.store.memories.refuse(KEY, refusal)
    plan = cluster.reconcile()
    assert (jobs_in(plan), plan.look_again) == ([], cluster.policy.refusal_interval)
    assert (cluster.state(), cluster.entries[URI]["reason"]) == ("Pending", "QuotaExceeded")
    cluster.now += timedelta(seconds=cluster.policy.refusal_interval)
    assert len(jobs_in(cluster.reconcile())) == 1


# ---- the limit ------------------------------------------------------------------------------------------------------------


def test_a_job_may_take_what_the_others_leave() -> None:
    cluster = bound(limit="25Gi")
    cluster.add_model()
    cluster.settle()
    cluster.add_model("n", OTHER)
    (job,) = jobs_in(cluster.reconcile())
    assert option(job, "--limit") == str(15 * GIB)


def test_without_a_limit_the_job_has_none(cluster: CacheSimulation) -> None:
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
    run(cluster, steps=2)
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


# ---- eviction ---------------------------------------------------------------------------------------------------------------


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
        run(cluster)
    assert told == [f"{URI} makes room for {THIRD}"]


def test_nothing_starts_until_what_makes_room_is_gone() -> None:
    cluster = crowded()
    cluster.add_model("c", THIRD)
    for _ in range(30):
        cluster.now += timedelta(seconds=1)
        cluster.reconcile()
        run(cluster, steps=1)
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
    run(cluster)
    cluster.settle()
    assert cluster.state(THIRD) == "Present"


# ---- Absent --------------------------------------------------------------------------------------------------------------


def test_absent_removes_what_is_there(full: CacheSimulation) -> None:
    full.drop("Model", "m")
    full.declare({"uri": URI, "state": "Absent"})
    full.settle()
    assert (full.state(), full.volume, full.jobs()) == ("Absent", {}, [])
    assert (full.status["phase"], full.status["usedBytes"]) == ("Ready", 0)


def test_absent_of_what_was_never_there_is_absent(cluster: CacheSimulation) -> None:
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


# ---- cut off anywhere ---------------------------------------------------------------------------------------------------------

_ENDS = st.lists(st.sampled_from([KILLED, LOST, "ConnectionCut", "!NotFound", "!NoSpace"]), max_size=3)


@given(
    ends=st.tuples(_ENDS, _ENDS),
    cuts=st.lists(st.none() | st.integers(0, 3), max_size=20),
    parallel=st.integers(1, 2),
)
@settings(max_examples=60)
def test_everything_wanted_comes_sooner_or_later(
    ends: tuple[list[str], list[str]], cuts: list[int | None], parallel: int
) -> None:
    cluster = CacheSimulation(maxParallelDownloads=parallel)
    for uri, mine in zip((URI, OTHER), ends, strict=True):
        cluster.sources[uri] = Source(ends=list(mine))
    cluster.add_model()
    cluster.declare(OTHER)
    for cut in cuts:
        cluster.now += timedelta(seconds=7)
        cluster.reconcile(cut)
        cluster.bind_claim()
        run(cluster, steps=1)
    cluster.settle()
    assert (cluster.state(URI), cluster.state(OTHER)) == ("Present", "Present")
    assert (cluster.status["phase"], cluster.jobs()) == ("Ready", [])
    assert sorted(cluster.volume.values()) == [10 * GIB, 10 * GIB]


def test_wherever_it_is_cut_off_it_ends_the_same() -> None:
    def life(cut: int) -> CacheSimulation:
        cluster = CacheSimulation(Policy(), limit="25Gi")
        cluster.sources[URI] = Source(ends=["ConnectionCut"])
        cluster.add_model()
        for step in range(30):
            cluster.now += timedelta(seconds=5)
            cluster.reconcile(cut_off_after=step % 3 if step < cut else None)
            cluster.bind_claim()
            run(cluster, steps=1)
        cluster.settle()
        return cluster

    endings = []
    for cut in range(0, 25, 4):
        entry = dict(life(cut).entries[URI])
        entry.pop("job")
        endings.append(entry)
    assert all(ending == endings[0] for ending in endings)


def test_jobs_have_names_that_follow_from_what_they_do(cluster: CacheSimulation) -> None:
    cluster.settle()
    cluster.add_model()
    names = {change.manifest["metadata"]["name"] for change in cluster.plan().changes if isinstance(change, Apply)}
    cluster.restart()
    again = {change.manifest["metadata"]["name"] for change in cluster.plan().changes if isinstance(change, Apply)}
    assert names == again
    assert len(names) == 1
