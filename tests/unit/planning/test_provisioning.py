"""A Model and its weights: it waits for them, says what is wrong with them, and goes on serving meanwhile."""

from typing import Any

import pytest

from berth.planning.plan import Plan
from support import builders
from support.builders import GIB, URI
from support.kstatus import kstatus
from support.simulation import Simulation

OTHER = "hf://org/mistral"
REVISED = f"{URI}@v2"
LLAMACPP = {"backend": "llamacpp", "custom": None, "serving": None}


def cluster_with(
    *entries: dict[str, Any], uri: str = URI, spec: dict[str, Any] | None = None, **status: Any
) -> Simulation:
    """A cluster with a Model whose weights belong to a ModelCache that says this of its artifacts."""
    changes = {"source": {"uri": URI}, "gpus": {"count": 0}, **(spec or {})}
    cluster = Simulation(**changes)
    plain = {key: value for key, value in cluster.model["spec"].items() if value is not None}
    cluster.keep({**cluster.model, "spec": plain})
    cache_says(cluster, *entries, **status)
    return cluster


def cache_says(cluster: Simulation, *entries: dict[str, Any], **status: Any) -> None:
    """The status of the ModelCache."""
    told = {"observedGeneration": 1, "phase": "Ready", "claim": "modelcache-default", "accessMode": "ReadWriteOnce"}
    cluster.keep(builders.model_cache(status={**told, "artifacts": list(entries), **status}))


def serving(*entries: dict[str, Any], **more: Any) -> Simulation:
    """A cluster whose Model serves."""
    cluster = cluster_with(*(entries or (builders.entry(),)), **more)
    cluster.settle()
    assert cluster.status["phase"] == "Ready"
    return cluster


def verdict(cluster: Simulation) -> tuple[str, str]:
    """Phase and reason of the Model, once it has come to rest."""
    cluster.settle()
    return cluster.status["phase"], condition(cluster, "Ready")["reason"]


def condition(cluster: Simulation, kind: str) -> dict[str, Any]:
    found = {one["type"]: one for one in cluster.status["conditions"]}
    result: dict[str, Any] = found.get(kind, {})
    return result


def pod_spec(cluster: Simulation) -> dict[str, Any]:
    found: dict[str, Any] = cluster.deployment["spec"]["template"]["spec"]
    return found


def argument(cluster: Simulation) -> str:
    return " ".join(pod_spec(cluster)["containers"][0].get("args", []))


# ---- waiting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["Pending", "Downloading", "Removing", "Absent"])
def test_a_model_is_provisioning_until_its_weights_are_there(state: str) -> None:
    cluster = cluster_with(builders.entry(state=state, reason="Downloading", message="half of it is there"))
    assert verdict(cluster) == ("Provisioning", "Downloading")
    assert condition(cluster, "Ready")["message"] == "half of it is there"
    assert ("Deployment", "m") not in cluster.objects, "no server could start"
    assert condition(cluster, "Provisioned")["status"] == "False"


def test_a_cache_that_has_not_seen_the_model_yet_is_about_to() -> None:
    assert verdict(cluster_with()) == ("Provisioning", "WaitingForDownload")


def test_a_waiting_model_shows_how_far_its_download_is() -> None:
    entry = builders.entry(state="Downloading", bytes=10 * GIB, bytesDone=4 * GIB, percent=40, etaSeconds=60)
    cluster = cluster_with(entry)
    cluster.settle()
    shown = cluster.status["provisioning"]
    assert (shown["percent"], shown["progress"], shown["bytesTotal"]) == (40, "40%", 10 * GIB)
    assert (shown["cache"], shown["uri"]) == ("default", URI)


def test_an_attempt_that_failed_is_shown_while_the_next_is_awaited() -> None:
    entry = builders.entry(state="Pending", attempt=2, reason="ConnectionCut", message="it broke off")
    cluster = cluster_with(entry)
    assert verdict(cluster) == ("Provisioning", "ConnectionCut")
    assert (cluster.status["provisioning"]["attempt"], cluster.status["provisioning"]["lastError"]) == (
        3,
        "ConnectionCut: it broke off",
    )


def test_weights_that_arrive_start_the_server() -> None:
    cluster = cluster_with(builders.entry(state="Downloading"))
    cluster.settle()
    cache_says(cluster, builders.entry())
    cluster.settle()
    assert cluster.status["phase"] == "Ready"
    assert condition(cluster, "Provisioned")["status"] == "True"
    timeline = cluster.status["timeline"]
    assert timeline["queuedAt"] <= timeline["provisionedAt"] <= timeline["startedAt"]


def test_a_mistake_in_the_spec_is_told_before_the_weights_are_there() -> None:
    broken = {"podTemplate": {"spec": {"hostNetwork": True}}}
    assert verdict(cluster_with(builders.entry(state="Downloading"), spec=broken)) == ("Failed", "InvalidSpec")


def test_a_named_cache_that_does_not_exist_is_waited_for() -> None:
    cluster = Simulation(source={"uri": URI, "cache": "big"}, gpus={"count": 0})
    assert verdict(cluster) == ("Provisioning", "CacheNotFound")
    cluster.keep(builders.model_cache("big", status={"artifacts": [builders.entry()]}))
    assert verdict(cluster) == ("Ready", "Serving")


def test_a_waiting_model_costs_no_writes() -> None:
    cluster = cluster_with(builders.entry(state="Downloading"))
    cluster.settle()
    assert cluster.plan() == Plan()


# ---- failing -------------------------------------------------------------------------------------------------


def test_a_download_that_needs_a_person_fails_the_model_with_its_own_reason() -> None:
    cluster = cluster_with(builders.entry(state="Failed", reason="TokenMissing", message="set source.secretRef"))
    assert verdict(cluster) == ("Failed", "TokenMissing")
    assert kstatus(1, cluster.status) == "Failed"
    assert condition(cluster, "Stalled")["message"] == "set source.secretRef"


@pytest.mark.parametrize("reason", ["TokenMissing", "SecretNotFound", "ImagePullFailed", "LimitExceeded"])
def test_a_model_recovers_by_itself_when_its_weights_come_after_all(reason: str) -> None:
    cluster = cluster_with(builders.entry(state="Failed", reason=reason, message="mend it"))
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
    cache_says(cluster, builders.entry())
    assert verdict(cluster) == ("Ready", "Serving")


def test_a_cache_that_cannot_be_used_fails_the_model_that_waits_for_it() -> None:
    conditions = [{"type": "Ready", "status": "False", "reason": "ClaimLost", "message": "the volume is gone"}]
    cluster = cluster_with(phase="Failed", conditions=conditions)
    assert verdict(cluster) == ("Failed", "CacheFailed")
    assert condition(cluster, "Ready")["message"] == "ModelCache default cannot be used: the volume is gone"


def test_one_artifact_that_failed_is_nothing_to_a_model_of_another() -> None:
    failed = builders.entry(OTHER, "Failed", reason="NotFound", message="no")
    cluster = cluster_with(builders.entry(state="Pending", reason="WaitingForSlot"), failed, phase="Failed")
    assert verdict(cluster) == ("Provisioning", "WaitingForSlot")


def test_a_stopped_model_says_that_it_is_stopped_whatever_its_weights_do() -> None:
    failed = builders.entry(state="Failed", reason="NotFound", message="no")
    assert verdict(cluster_with(failed, spec={"state": "Stopped"})) == ("Stopped", "StoppedByUser")


def test_a_server_of_one_file_needs_to_know_which() -> None:
    cluster = cluster_with(builders.entry(), spec=LLAMACPP)
    assert verdict(cluster) == ("Failed", "Incompatible")
    assert "source.files" in condition(cluster, "Ready")["message"]


def test_weights_that_the_server_cannot_load_are_refused() -> None:
    gguf = builders.entry(figures={"format": "gguf"}, file="a.gguf")
    assert verdict(cluster_with(gguf, spec={**LLAMACPP, "backend": "tgi", "gpus": {"count": 1}})) == (
        "Failed",
        "Incompatible",
    )


# ---- what a server gets --------------------------------------------------------------------------------------


def test_a_server_mounts_the_claim_for_reading_only() -> None:
    cluster = serving()
    (volume,) = [one for one in pod_spec(cluster)["volumes"] if one["name"] == "models"]
    assert volume["persistentVolumeClaim"] == {"claimName": "modelcache-default", "readOnly": True}
    (mount,) = [one for one in pod_spec(cluster)["containers"][0]["volumeMounts"] if one["name"] == "models"]
    assert mount["readOnly"] is True
    assert "initContainers" not in pod_spec(cluster)


def test_a_server_of_one_file_is_given_that_file() -> None:
    cluster = serving(builders.entry(file="Q4/model.gguf"), spec=LLAMACPP)
    assert f"/models/{builders.entry()['name']}/Q4/model.gguf" in argument(cluster)


def test_servers_keep_to_the_node_of_a_volume_for_one_node() -> None:
    (term,) = pod_spec(serving())["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"] == {"matchLabels": {"berth.dev/cache": "default"}}
    cluster = serving()
    assert cluster.deployment["spec"]["template"]["metadata"]["labels"]["berth.dev/cache"] == "default"


def test_servers_go_anywhere_with_a_volume_for_many_nodes() -> None:
    assert "affinity" not in pod_spec(serving(accessMode="ReadWriteMany"))


def test_a_found_model_is_served_from_where_it_lies() -> None:
    found = builders.entry(adopted=True, name="found-1", path="mine/llama", file="a.gguf")
    assert "/models/mine/llama/a.gguf" in argument(serving(found, spec=LLAMACPP))


def test_several_found_models_of_one_name_have_to_be_told_apart() -> None:
    several = [
        builders.entry(adopted=True, name=f"found-{file}", path="mine", file=file) for file in ("a.gguf", "b.gguf")
    ]
    cluster = cluster_with(*several, spec=LLAMACPP)
    assert verdict(cluster) == ("Failed", "Incompatible")
    assert "(a.gguf, b.gguf): choose one with source.files" in condition(cluster, "Ready")["message"]
    cluster.edit(source={"uri": URI, "files": ["b.gguf"]})
    assert verdict(cluster) == ("Ready", "Serving")


# ---- serving goes on -----------------------------------------------------------------------------------------


def revised(**changes: Any) -> Simulation:
    """A cluster whose Model serves and wants other weights, of which the ModelCache says this."""
    cluster = serving()
    cluster.edit(source={"uri": REVISED})
    cache_says(cluster, builders.entry(), builders.entry(REVISED, **changes))
    return cluster


def test_a_model_goes_on_serving_while_new_weights_come() -> None:
    cluster = revised(state="Downloading", reason="Downloading", message="half")
    before = cluster.pods()
    assert verdict(cluster) == ("Updating", "Downloading")
    assert (cluster.pods(), cluster.status["readyReplicas"]) == (before, 1)
    assert condition(cluster, "Available")["status"] == "True"


def test_new_weights_replace_the_server_once_they_are_there() -> None:
    cluster = revised(state="Downloading")
    cluster.settle()
    cache_says(cluster, builders.entry(), builders.entry(REVISED))
    assert verdict(cluster) == ("Ready", "Serving")
    assert builders.entry(REVISED)["name"] in cluster.deployment["metadata"]["annotations"]["berth.dev/weights"]


@pytest.mark.parametrize("reason", ["NotFound", "SecretNotFound"])
def test_new_weights_that_cannot_come_leave_the_servers_alone(reason: str) -> None:
    cluster = revised(state="Failed", reason=reason, message="it cannot come")
    before = cluster.pods()
    cluster.settle()
    assert (cluster.status["phase"], cluster.pods()) == ("Failed", before)
    assert "The servers of the last generation go on" in condition(cluster, "Ready")["message"]
    assert condition(cluster, "Available")["status"] == "True"


def test_a_cache_that_vanishes_restarts_no_server_that_answers() -> None:
    cluster = serving()
    before = cluster.pods()
    cluster.drop("ModelCache", "default")
    assert verdict(cluster) == ("Ready", "Serving")
    assert cluster.pods() == before


@pytest.mark.parametrize("said", [(), (builders.entry(state="Pending"),), (builders.entry(state="Downloading"),)])
def test_a_cache_that_lost_its_status_restarts_no_server_that_answers(said: tuple[dict[str, Any], ...]) -> None:
    cluster = serving()
    before = cluster.pods()
    cache_says(cluster, *said)
    assert verdict(cluster) == ("Ready", "Serving")
    assert cluster.pods() == before


def test_a_cache_that_appears_restarts_no_server_that_answers() -> None:
    cluster = Simulation(source={"uri": URI}, gpus={"count": 0})
    cluster.settle()
    assert "initContainers" in pod_spec(cluster)
    before = cluster.pods()
    cache_says(cluster, builders.entry())
    assert verdict(cluster) == ("Ready", "Serving")
    assert cluster.pods() == before
    cluster.edit(state="Stopped")
    cluster.settle()
    cluster.edit(state="Running")
    cluster.settle()
    assert "initContainers" not in pod_spec(cluster), "the next start uses what the cache has"


def test_another_process_sees_no_reason_to_restart_a_server() -> None:
    cluster = serving()
    cluster.restart()
    assert cluster.plan() == Plan()


def test_another_revision_of_what_is_kept_is_a_reason() -> None:
    """The artifact was removed, and its branch has moved on since."""
    cluster = serving()
    cache_says(cluster, builders.entry(revision="def"))
    cluster.settle()
    assert '"revision":"def"' in cluster.deployment["metadata"]["annotations"]["berth.dev/weights"]
