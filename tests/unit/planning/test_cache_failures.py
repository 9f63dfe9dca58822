"""Downloads fail, are told, and are tried again: by themselves, and at once when something was mended."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.planning.plan import Apply
from berth.planning.policy import Policy
from berth.planning.times import parse_time
from berth.planning.world import Refusal
from support import builders
from support.builders import GIB, URI
from support.cache_simulation import KEY, KILLED, LOST, CacheSimulation, Source, bound, failed, jobs_in

OTHER = "hf://org/mistral"
THIRD = "hf://org/qwen"


def condition(cluster: CacheSimulation, kind: str = "Ready") -> tuple[str, str]:
    found = next(one for one in cluster.status["conditions"] if one["type"] == kind)
    return found["status"], found["reason"]


# ---- failures -----------------------------------------------------------------------------------------------


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
        cluster.run(1)
    assert told == ["ConnectionCut", "Downloaded"]


def test_a_failure_stays_in_sight_until_a_new_attempt_comes_further() -> None:
    cluster = failed("!NotFound")
    cluster.now += timedelta(seconds=601)
    for _ in range(2):
        cluster.reconcile()
        assert (cluster.state(), cluster.entries[URI]["reason"]) == ("Failed", "NotFound")
        cluster.run(1)
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
    cluster.run(2)
    cluster.add_model(source={"uri": URI, "secretRef": {"name": "token"}})
    cluster.run()
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


# ---- cut off anywhere ---------------------------------------------------------------------------------------

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
        cluster.run(1)
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
            cluster.run(1)
        cluster.settle()
        return cluster

    endings = []
    for cut in range(0, 25, 4):
        entry = dict(life(cut).entries[URI])
        entry.pop("job")
        endings.append(entry)
    assert all(ending == endings[0] for ending in endings)


def test_jobs_have_names_that_follow_from_what_they_do() -> None:
    cluster = CacheSimulation()
    cluster.settle()
    cluster.add_model()
    names = {change.manifest["metadata"]["name"] for change in cluster.plan().changes if isinstance(change, Apply)}
    cluster.restart()
    again = {change.manifest["metadata"]["name"] for change in cluster.plan().changes if isinstance(change, Apply)}
    assert names == again
    assert len(names) == 1
