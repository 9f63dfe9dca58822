"""Where a download may run: where the Models that want it may, because the volume keeps them together."""

from typing import Any

import pytest

from support import builders
from support.builders import URI
from support.cache_simulation import CacheSimulation, bound, jobs_in

RWX = {"size": "100Gi", "accessModes": ["ReadWriteMany"]}
BESIDE = {
    "labelSelector": {"matchLabels": {"berth.dev/cache": builders.CACHE}},
    "topologyKey": "kubernetes.io/hostname",
}


def unbound(**spec: Any) -> CacheSimulation:
    """A cluster whose volume is made where its first Pod runs."""
    cluster = CacheSimulation(**spec)
    cluster.reconcile()
    return cluster


def pod_of(cluster: CacheSimulation) -> dict[str, Any]:
    """The Pod spec of the Job that is made now."""
    (job,) = jobs_in(cluster.reconcile())
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def hosts(pod: dict[str, Any]) -> list[str] | None:
    """The only nodes on which a Pod may run."""
    node_affinity = pod.get("affinity", {}).get("nodeAffinity")
    if node_affinity is None:
        return None
    (term,) = node_affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    found: list[str] = term["matchExpressions"][0]["values"]
    return found


def test_on_a_volume_for_one_node_all_pods_keep_together() -> None:
    cluster = unbound()
    cluster.add_model()
    affinity = pod_of(cluster)["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert affinity == [BESIDE]


def test_pods_of_a_download_match_their_own_affinity() -> None:
    """Otherwise the first one could never be scheduled."""
    cluster = unbound()
    cluster.add_model()
    (job,) = jobs_in(cluster.plan())
    assert job["spec"]["template"]["metadata"]["labels"]["berth.dev/cache"] == builders.CACHE


def test_on_a_volume_for_many_nodes_nothing_is_constrained() -> None:
    cluster = unbound(storage=RWX)
    cluster.add_node("gpu", gpus=1)
    cluster.add_model(gpus={"count": 1})
    assert "affinity" not in pod_of(cluster)


def test_a_download_goes_where_the_gpus_are_and_asks_for_none() -> None:
    cluster = unbound()
    for name, gpus in (("small", 1), ("large", 4), ("cpu", 0)):
        cluster.add_node(name, gpus=gpus)
    cluster.add_model(gpus={"count": 2})
    pod = pod_of(cluster)
    assert hosts(pod) == ["large"]
    assert "nvidia.com/gpu" not in str(pod["containers"][0]["resources"])
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


def test_only_the_products_that_the_model_takes_count() -> None:
    cluster = unbound()
    cluster.add_node("old", gpus=4, product="Tesla-T4")
    cluster.add_node("new", gpus=4, product="NVIDIA-H100")
    cluster.add_model(gpus={"count": 1, "products": ["NVIDIA-H100"]})
    assert hosts(pod_of(cluster)) == ["new"]


def test_cordoned_nodes_do_not_count() -> None:
    cluster = unbound()
    cluster.add_node("closed", gpus=4, cordoned=True)
    cluster.add_node("open", gpus=4)
    cluster.add_model(gpus={"count": 1})
    assert hosts(pod_of(cluster)) == ["open"]


def test_nodes_are_found_by_their_hostname_even_when_it_is_not_their_name() -> None:
    cluster = unbound()
    node = builders.node("i-0123", gpus=1)
    node["metadata"]["labels"]["kubernetes.io/hostname"] = "ip-198-18-0-1"
    cluster.store.observe(node)
    cluster.add_model(gpus={"count": 1})
    assert hosts(pod_of(cluster)) == ["ip-198-18-0-1"]


def test_an_unbound_volume_waits_for_a_node_that_the_server_can_use() -> None:
    cluster = unbound()
    cluster.add_node("cpu")
    cluster.add_model(gpus={"count": 1})
    cluster.reconcile()
    entry = cluster.entries[URI]
    assert (entry["state"], entry["reason"], cluster.jobs()) == ("Pending", "WaitingForNode", [])
    assert "no node offers enough nvidia.com/gpu yet" in entry["message"]
    cluster.add_node("gpu", gpus=1)
    assert hosts(pod_of(cluster)) == ["gpu"]


def test_a_bound_volume_has_chosen_already_and_waits_for_no_node() -> None:
    cluster = bound()
    cluster.add_node("cpu")
    cluster.add_model(gpus={"count": 1})
    assert hosts(pod_of(cluster)) is None


def test_a_cluster_whose_nodes_cannot_be_seen_lets_the_scheduler_choose() -> None:
    cluster = unbound()
    cluster.add_model(gpus={"count": 1})
    assert hosts(pod_of(cluster)) is None


def test_what_is_only_declared_may_go_anywhere() -> None:
    cluster = unbound()
    cluster.add_node("cpu")
    cluster.declare(URI)
    assert hosts(pod_of(cluster)) is None


def test_what_the_model_says_of_nodes_holds_for_its_download() -> None:
    said = {"nodeSelector": {"pool": "ml"}, "tolerations": [{"key": "ml", "operator": "Exists"}], "priority": 5}
    cluster = unbound()
    cluster.add_model(podTemplate={"spec": said})
    pod = pod_of(cluster)
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"pool": "ml"}, said["tolerations"])
    assert "priority" not in pod


def test_node_affinity_of_the_model_holds_besides_its_gpus() -> None:
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    term = {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}
    cluster = unbound()
    cluster.add_node("gpu", gpus=1)
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}
    cluster.add_model(gpus={"count": 1}, podTemplate={"spec": {"affinity": affinity}})
    found = pod_of(cluster)["affinity"]
    (both,) = found["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [one["key"] for one in both["matchExpressions"]] == ["kubernetes.io/hostname", "zone"]
    assert found["podAffinity"], "and the volume keeps them together"


_BROKEN_TERMS = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": ["x"]}}}


@pytest.mark.parametrize(
    "said", [{"affinity": "here"}, {"nodeSelector": ["x"]}, {"tolerations": {"key": 1}}, {"affinity": _BROKEN_TERMS}]
)
def test_a_model_whose_pod_template_makes_no_sense_stops_nobody_else(said: dict[str, Any]) -> None:
    """Its own status says what is wrong."""
    cluster = unbound()
    cluster.add_node("gpu", gpus=1)
    cluster.add_model(gpus={"count": 1}, podTemplate={"spec": said})
    cluster.add_model("n", "hf://org/other")
    cluster.settle()
    assert cluster.state("hf://org/other") == "Present"
    assert cluster.model_phase() == ("Failed", "InvalidSpec")


def test_a_model_that_is_no_model_wants_nothing_and_stops_nobody() -> None:
    cluster = unbound()
    cluster.add_model(levitate=True)
    cluster.add_model("n", "hf://org/other")
    cluster.settle()
    assert cluster.state("hf://org/other") == "Present"
    assert cluster.entries[URI]["models"] == ["m"], "what it refers to is kept all the same"
