"""A Model without a ModelCache: an init container brings its weights, and says how that goes."""

from typing import Any

import pytest

from berth.planning import names
from berth.planning.own_download import shown_download
from berth.planning.pods import pod_from
from support import builders
from support.builders import GIB, NAMESPACE, URI
from support.simulation import KEY, Simulation


def downloader(*, said: str = "", code: int = 1, running: bool = False, restarts: int = 0) -> dict[str, Any]:
    """The status of the init container."""
    ending = builders.ended(code, message=said) if said else None
    return builders.container(
        names.PROVISIONER_CONTAINER, running_for=30 if running else None, terminated=ending, restarts=restarts
    )


@pytest.fixture
def cluster() -> Simulation:
    """A cluster with a Model whose Pod has been made."""
    cluster = Simulation(source={"uri": URI}, gpus={"count": 0})
    cluster.reconcile()
    cluster.reconcile()
    cluster.roll_out()
    return cluster


def becomes(cluster: Simulation, init: dict[str, Any]) -> tuple[str, str, str]:
    """Phase, reason and message when the init container of the Pod is like this."""
    (pod,) = cluster.pods()
    template = pod["metadata"]["labels"][names.TEMPLATE_HASH_LABEL]
    waiting = builders.container(waiting="PodInitializing")
    cluster.keep(
        builders.pod(pod["metadata"]["name"], template=template, node="n1", init=(init,), containers=(waiting,))
    )
    cluster.reconcile()
    ready = next(one for one in cluster.status["conditions"] if one["type"] == "Ready")
    return cluster.status["phase"], ready["reason"], ready["message"]


def init_container(cluster: Simulation) -> dict[str, Any]:
    (found,) = cluster.deployment["spec"]["template"]["spec"]["initContainers"]
    result: dict[str, Any] = found
    return result


# ---- the Pod --------------------------------------------------------------------------------------------


def test_the_weights_come_onto_a_volume_of_the_pod(cluster: Simulation) -> None:
    spec = cluster.deployment["spec"]["template"]["spec"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "models"]
    assert volume["emptyDir"] == {"sizeLimit": "20Gi"}
    assert "--limit" in init_container(cluster)["args"]
    assert str(20 * GIB) in init_container(cluster)["args"]


def test_the_server_may_only_read_them(cluster: Simulation) -> None:
    (server,) = cluster.deployment["spec"]["template"]["spec"]["containers"]
    (mount,) = [one for one in server["volumeMounts"] if one["name"] == "models"]
    assert mount["readOnly"] is True
    assert not init_container(cluster)["volumeMounts"][0].get("readOnly")


def test_berth_may_ask_the_download(cluster: Simulation) -> None:
    ports = [
        port["port"] for rule in cluster.objects["NetworkPolicy", "m"]["spec"]["ingress"] for port in rule["ports"]
    ]
    assert names.PROGRESS_PORT in ports


# ---- how it goes ----------------------------------------------------------------------------------------


def test_a_download_in_the_pod_is_provisioning_and_says_that_it_holds_the_gpus(cluster: Simulation) -> None:
    phase, reason, message = becomes(cluster, downloader(running=True))
    assert (phase, reason) == ("Provisioning", "Downloading")
    assert message == ("the download is starting. Its Pod holds its GPUs meanwhile; a ModelCache would spare that")


def test_its_progress_is_shown(cluster: Simulation) -> None:
    becomes(cluster, downloader(running=True))
    cluster.now = cluster.now.replace(second=10)
    cluster.store.memories.progress[NAMESPACE, cluster.pods()[0]["metadata"]["name"]] = builders.progress(40)
    cluster.reconcile()
    shown = cluster.status["provisioning"]
    assert (shown["percent"], shown["progress"], shown["bytesTotal"], shown["uri"]) == (40, "40%", 10 * GIB, URI)
    assert "4.0 GiB of 10.0 GiB are there" in cluster.status["conditions"][0]["message"]


def test_progress_alone_is_written_every_two_seconds_at_most(cluster: Simulation) -> None:
    becomes(cluster, downloader(running=True))
    place = NAMESPACE, cluster.pods()[0]["metadata"]["name"]
    cluster.store.memories.progress[place] = builders.progress(40)
    cluster.reconcile()
    cluster.store.memories.status_written(KEY, cluster.now)
    cluster.store.memories.progress[place] = builders.progress(41)
    plan = cluster.plan()
    assert (plan.status, plan.look_again) == (None, 2)


def test_the_one_that_is_furthest_behind_is_shown() -> None:
    running = (downloader(running=True),)
    pods = [pod_from(builders.pod(name, node="n1", init=running)) for name in "abc"]
    told = {"a": builders.progress(70), "b": builders.progress(20), "c": builders.progress(90)}
    assert shown_download(pods, told, URI, {})["percent"] == 20
    assert shown_download(pods, {**told, "b": {}}, URI, {})["progress"] == "0%", "it has not said anything yet"


def test_what_is_shown_stays_when_nobody_says_anything() -> None:
    before = {"uri": URI, "percent": 40, "progress": "40%"}
    assert shown_download([], {}, URI, before) == {"uri": URI, "percent": 40}
    assert shown_download([], {}, "hf://org/other", before) == {"uri": "hf://org/other"}
    assert shown_download([], {}, URI, {**before, "cache": "default"}) == {"uri": URI}, "that was another's"


def test_a_download_that_is_done_is_whole() -> None:
    done = pod_from(builders.pod(node="n1", init=(downloader(said=builders.said(), code=0),)))
    shown = shown_download([done], {}, URI, {})
    assert (shown["percent"], shown["bytesDone"], shown["filesDone"], shown["verified"]) == (100, 10 * GIB, 3, True)


# ---- how it fails ---------------------------------------------------------------------------------------


def test_what_a_person_has_to_mend_fails_the_model_with_its_reason(cluster: Simulation) -> None:
    phase, reason, message = becomes(cluster, downloader(said=builders.said_failed(), code=65))
    assert (phase, reason) == ("Failed", "NotFound")
    assert message.startswith("there is no such model. ")
    assert "berth.dev/start" in message, "nothing else but a change of the spec has it tried again"


def test_what_may_pass_does_not(cluster: Simulation) -> None:
    words = builders.said_failed("ConnectionCut", "it broke off", passing=True)
    phase, reason, _ = becomes(cluster, downloader(said=words, code=75))
    assert (phase, reason) == ("Loading", "ConnectionCut")


def test_more_than_a_pod_may_hold_needs_a_cache(cluster: Simulation) -> None:
    words = builders.said_failed("LimitExceeded", "the files have 30 GiB and the limit is 20 GiB")
    phase, reason, message = becomes(cluster, downloader(said=words, code=65))
    assert (phase, reason) == ("Failed", "CacheRequired")
    assert message.endswith("create a ModelCache named default, or name one in source.cache")


def test_a_cache_that_is_made_then_lets_the_model_go_on(cluster: Simulation) -> None:
    becomes(cluster, downloader(said=builders.said_failed("LimitExceeded", "too large"), code=65))
    cluster.keep(builders.model_cache(status={"artifacts": [builders.entry()], "claim": "weights"}))
    cluster.settle()
    assert cluster.status["phase"] == "Ready"
    assert "initContainers" not in cluster.deployment["spec"]["template"]["spec"]


def test_a_model_that_was_given_up_for_its_download_stays_so_until_its_spec_changes(cluster: Simulation) -> None:
    becomes(cluster, downloader(said=builders.said_failed(), code=65))
    cluster.settle()
    assert (cluster.status["phase"], cluster.pods()) == ("Failed", [])
    cluster.edit(source={"uri": "hf://org/right"})
    cluster.settle()
    assert cluster.status["phase"] == "Ready"


@pytest.mark.parametrize("said", ["killed", '{"result": "Failed"}', '{"result": "Failed", "reason": "BadLuck"}'])
def test_words_that_make_no_sense_are_a_failure_that_may_pass(cluster: Simulation, said: str) -> None:
    assert becomes(cluster, downloader(said=said))[0] == "Loading"
