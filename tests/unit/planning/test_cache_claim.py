"""The claim of a ModelCache: made, adopted, or somebody's; never deleted."""

from dataclasses import replace
from typing import Any

import pytest

from berth.planning.cache_plan import decide_cache
from berth.planning.plan import Apply, Delete, Plan
from berth.planning.policy import Policy
from berth.planning.world import CLAIM
from support import builders
from support.builders import URI
from support.cache_simulation import CacheSimulation, jobs_in

NAME = f"modelcache-{builders.CACHE}"


def claim_in(plan: Plan) -> dict[str, Any] | None:
    """The claim that a plan writes."""
    written = [one.manifest for one in plan.changes if isinstance(one, Apply) and one.manifest["kind"] == CLAIM]
    return written[0] if written else None


def verdict(cluster: CacheSimulation) -> tuple[str, str]:
    """Phase and reason after the next look."""
    cluster.reconcile()
    return cluster.status["phase"], cluster.status["conditions"][0]["reason"]


# ---- made by Berth --------------------------------------------------------------------------------------


def test_a_claim_is_made_as_the_person_says() -> None:
    storage = {"size": "500Gi", "storageClassName": "fast", "accessModes": ["ReadWriteMany"]}
    claim = claim_in(CacheSimulation(storage=storage).plan())
    assert claim is not None
    assert claim["metadata"]["name"] == NAME
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "500Gi"}},
        "storageClassName": "fast",
    }


def test_a_claim_is_used_by_one_node_unless_somebody_says_otherwise() -> None:
    claim = claim_in(CacheSimulation().plan())
    assert claim is not None
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert "storageClassName" not in claim["spec"], "the cluster's default"


@pytest.mark.parametrize(("reclaim", "owned"), [("Retain", False), ("Delete", True)])
def test_a_claim_has_an_owner_only_when_it_is_to_go_with_the_cache(reclaim: str, owned: bool) -> None:
    claim = claim_in(CacheSimulation(storage={"size": "1Gi", "reclaim": reclaim}).plan())
    assert claim is not None
    assert bool(claim["metadata"].get("ownerReferences")) is owned


def test_reclaim_that_is_changed_to_retain_takes_the_owner_away() -> None:
    cluster = CacheSimulation(storage={"size": "1Gi", "reclaim": "Delete"})
    cluster.settle()
    cluster.edit(storage={"size": "1Gi", "reclaim": "Retain"})
    claim = claim_in(cluster.plan())
    assert claim is not None
    assert "ownerReferences" not in claim["metadata"], "what is applied no longer goes when it is left out"


def test_a_larger_size_enlarges_the_claim() -> None:
    cluster = CacheSimulation()
    cluster.settle()
    cluster.edit(storage={"size": "200Gi"})
    claim = claim_in(cluster.plan())
    assert claim is not None
    assert claim["spec"]["resources"]["requests"]["storage"] == "200Gi"


def test_a_claim_that_outlived_its_cache_is_used_again() -> None:
    cluster = CacheSimulation()
    cluster.keep(builders.claim())
    cluster.add_model()
    cluster.settle()
    assert cluster.state() == "Present"


def test_somebody_elses_claim_of_that_name_is_left_alone() -> None:
    cluster = CacheSimulation()
    cluster.keep(builders.claim(cache=""))
    cluster.add_model()
    assert verdict(cluster) == ("Failed", "NameConflict")
    assert claim_in(cluster.plan()) is None


def test_what_the_api_server_fills_in_is_no_reason_to_write() -> None:
    cluster = CacheSimulation()
    cluster.settle()
    claim = cluster.objects[CLAIM, NAME]
    cluster.keep({**claim, "spec": {**claim["spec"], "volumeName": "pv-1", "storageClassName": "default"}})
    assert cluster.plan() == Plan()


# ---- named by a person ----------------------------------------------------------------------------------


def test_a_claim_that_a_person_names_is_used_and_never_written() -> None:
    cluster = CacheSimulation(storage={"claim": "weights"})
    cluster.keep(builders.claim("weights", cache="", modes=["ReadWriteMany"], capacity="2Ti"))
    before = cluster.objects[CLAIM, "weights"]
    cluster.add_model()
    cluster.settle()
    assert (cluster.state(), cluster.status["accessMode"]) == ("Present", "ReadWriteMany")
    assert cluster.objects[CLAIM, "weights"] == before
    assert cluster.status["used"] == "10.0 GiB of 2.0 TiB"


def test_a_claim_that_does_not_exist_yet_is_waited_for() -> None:
    cluster = CacheSimulation(storage={"claim": "weights"})
    cluster.add_model()
    assert verdict(cluster) == ("Pending", "ClaimNotFound")
    assert cluster.entries[URI]["reason"] == "ClaimNotFound"
    cluster.keep(builders.claim("weights", cache=""))
    assert cluster.woken
    cluster.settle()
    assert cluster.state() == "Present"


def test_the_claim_that_berth_made_stays_when_another_is_named() -> None:
    cluster = CacheSimulation(storage={"size": "1Gi", "reclaim": "Delete"})
    cluster.settle()
    cluster.keep(builders.claim("weights", cache=""))
    cluster.edit(storage={"claim": "weights"})
    cluster.settle()
    assert (CLAIM, NAME) in cluster.objects


@pytest.mark.parametrize("storage", [{"size": "1Gi"}, {"size": "1Gi", "reclaim": "Delete"}, {"claim": "weights"}])
@pytest.mark.parametrize("phase", ["Bound", "Pending", "Lost"])
@pytest.mark.parametrize("modes", [["ReadWriteOnce"], ["ReadWriteOncePod"], []])
def test_no_plan_ever_deletes_a_claim(storage: dict[str, Any], phase: str, modes: list[str]) -> None:
    cluster = CacheSimulation(storage=storage)
    for name, cache in ((NAME, builders.CACHE), ("weights", "")):
        cluster.keep(builders.claim(name, cache=cache, phase=phase, modes=modes))
    world = cluster.world()
    for deleting in (False, True):
        subject = replace(world.subject, deleting=deleting)
        plan = decide_cache(replace(world, subject=subject), cluster.now, Policy())
        assert not [one for one in plan.changes if isinstance(one, Delete) and one.kind == CLAIM]


# ---- what it is like ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({"modes": ["ReadWriteOncePod"]}, ("Failed", "AccessModeUnsupported"), "use a claim with ReadWriteOnce or"),
        ({"modes": ["ReadOnlyMany"]}, ("Failed", "AccessModeUnsupported"), "is ReadOnlyMany"),
        ({"phase": "Lost"}, ("Failed", "ClaimLost"), "restore it"),
        ({"deleting": True}, ("Pending", "Creating"), "is being deleted"),
    ],
)
def test_a_claim_that_cannot_be_used_says_why(changes: dict[str, Any], expected: tuple[str, str], words: str) -> None:
    cluster = CacheSimulation(storage={"claim": "weights"})
    cluster.keep(builders.claim("weights", cache="", **changes))
    cluster.add_model()
    assert verdict(cluster) == expected
    assert words in cluster.status["conditions"][0]["message"]
    assert jobs_in(cluster.plan()) == []


def test_a_claim_that_waits_for_its_first_user_gets_one() -> None:
    """WaitForFirstConsumer: nothing would ever bind it if the download waited for that."""
    cluster = CacheSimulation()
    cluster.add_model()
    cluster.reconcile()
    assert cluster.objects[CLAIM, NAME]["status"] == {"phase": "Pending"}
    assert len(jobs_in(cluster.reconcile())) == 1


def test_the_most_that_a_claim_allows_counts() -> None:
    cluster = CacheSimulation(storage={"claim": "weights"})
    cluster.keep(builders.claim("weights", cache="", modes=["ReadOnlyMany", "ReadWriteOnce"]))
    cluster.reconcile()
    assert cluster.status["accessMode"] == "ReadWriteOnce"


def test_nodes_whose_pods_use_the_volume_are_shown() -> None:
    cluster = CacheSimulation()
    cluster.settle()
    cluster.keep(builders.serving_pod(labels={"berth.dev/cache": builders.CACHE}))
    cluster.reconcile()
    assert cluster.status["nodes"] == ["n1"]
