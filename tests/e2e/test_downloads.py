"""Weights that arrive by themselves: a hub of this machine, real Jobs, a real llama-server."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import tinymodel
from support.caches import cache, download_pods, entry, jobs, wait_for_state
from support.kube import Cluster, eventually
from support.misbehaving_server import MisbehavingServer
from support.models import Served, conditions, patch, pods, wait_for_phase, wait_for_stall
from support.operator_process import ROOT
from support.servers import BUSYBOX, Phases, address, ask, llama

pytestmark = pytest.mark.cluster

TINY = "hf://org/tiny"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tiny GGUF model."""
    path = tmp_path_factory.mktemp("weights") / "tiny.gguf"
    tinymodel.write(path)
    return path.read_bytes()


@pytest.fixture
def hub(cluster: Cluster, weights: bytes) -> Iterator[MisbehavingServer]:
    """A hub that Pods reach: it has a repository with one tiny model."""
    from localcluster import api

    host = api.status(cluster.name)["addresses"]["host"]
    with MisbehavingServer(host=host) as server:
        server.put_repository("org/tiny", {"tiny.gguf": weights, "README.md": b"# Tiny\n"}, lfs=("tiny.gguf",))
        yield server


@pytest.fixture
def store(served: Served) -> Iterator[str]:
    """A name for the ModelCache of a test; it is gone, with its claim, when the test is over."""
    chosen = f"c-{uuid.uuid4().hex[:8]}"
    yield chosen
    where, namespace = served.cluster, served.namespace
    where.kubectl("-n", namespace, "delete", "modelcache", chosen, "--ignore-not-found", "--wait=false")
    where.kubectl("-n", namespace, "delete", "pvc", f"modelcache-{chosen}", "--ignore-not-found", "--wait=false")


def on(store: str, name: str, uri: str = TINY, **source: object) -> dict[str, object]:
    """A Model on a real llama-server whose weights a ModelCache keeps."""
    return llama(name, source={"uri": uri, "cache": store, **source})


def slow(hub: MisbehavingServer, path: str, rate: int) -> None:
    """Serve a file at so many bytes per second."""
    for name, resource in hub.resources.items():
        if name.endswith(path):
            resource.rate = rate


def test_a_model_goes_from_provisioning_over_loading_to_ready_and_answers(
    served: Served, name: str, store: str, hub: MisbehavingServer, weights: bytes
) -> None:
    where, namespace = served.cluster, served.namespace
    slow(hub, "tiny.gguf", len(weights) // 10)
    where.apply(cache(store, hub.url), namespace=namespace)
    percents: list[int] = []
    with Phases(where, namespace, name) as watched:
        where.apply(on(store, name), namespace=namespace)

        def moving() -> bool:
            found = where.get("model", name, namespace)
            assert found is not None
            percent = found["status"].get("provisioning", {}).get("percent")
            if percent is not None and percent not in percents:
                percents.append(percent)
            return found["status"]["phase"] == "Ready"

        eventually(moving, 90, "Ready")
        eventually(lambda: watched.phases[-1:] == ["Ready"], 10)
    assert [phase for phase in watched.phases if phase != "Pending"] == ["Provisioning", "Loading", "Ready"]
    assert percents == sorted(percents)
    assert len([percent for percent in percents if 0 < percent < 100]) >= 2, percents
    assert ask(address(where, namespace, name))
    status = where.get("model", name, namespace)["status"]  # type: ignore[index]
    assert status["provisioning"]["revision"] == "a" * 40
    assert status["provisioning"]["verified"] is True
    assert conditions(where, namespace, name)["Provisioned"][0] == "True"
    stored = entry(where, namespace, store, TINY)
    assert stored["figures"]["architecture"] == "llama"
    assert stored["models"] == [name]
    eventually(lambda: not jobs(where, namespace, store), 20, "the Job is deleted once its end is recorded")
    assert served.operator.metric("berth_downloads_total", result="Succeeded") >= 1
    assert served.operator.metric("berth_download_bytes_total") >= len(weights)


def test_a_second_model_with_the_same_artifact_downloads_nothing(
    served: Served, name: str, store: str, hub: MisbehavingServer
) -> None:
    where, namespace = served.cluster, served.namespace
    other = f"{name}-other"
    where.apply(cache(store, hub.url), on(store, name), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 90)
    asked = len(hub.seen)
    try:
        where.apply(on(store, other), namespace=namespace)
        wait_for_phase(where, namespace, other, "Ready", 60)
        assert len(hub.seen) == asked
        assert entry(where, namespace, store, TINY)["models"] == sorted([name, other])
    finally:
        where.kubectl("-n", namespace, "delete", "model", other, "--wait=false")


def test_a_killed_download_goes_on_where_it_was(served: Served, store: str, hub: MisbehavingServer) -> None:
    where, namespace = served.cluster, served.namespace
    content = bytes(range(256)) * 4096 * 24  # 24 MiB
    hub.put_repository("org/large", {"large.bin": content}, lfs=("large.bin",), rate=3 * 2**20)
    uri = "hf://org/large"
    where.apply(cache(store, hub.url, artifacts=[{"uri": uri}]), namespace=namespace)
    path = f"/org/large/resolve/{'a' * 40}/large.bin"

    def half() -> str:
        found = entry(where, namespace, store, uri)
        assert (found.get("percent") or 0) >= 40, found
        return str(download_pods(where, namespace, store)[0]["metadata"]["name"])

    victim = eventually(half, 60, "half of the download")
    where.kubectl("-n", namespace, "delete", "pod", victim, "--grace-period=0", "--force")
    found = wait_for_state(where, namespace, store, uri, "Present", 90)
    assert found["verified"] is True
    assert hub.sent(path) <= len(content) + 2**20, "more than a mebibyte came twice"


def test_the_limit_refuses_a_third_artifact_before_its_first_byte(
    served: Served, store: str, hub: MisbehavingServer
) -> None:
    where, namespace = served.cluster, served.namespace
    for number in (1, 2, 3):
        hub.put_repository(f"org/part{number}", {"part.bin": bytes(2 * 2**20)}, lfs=("part.bin",))
    first, second, third = (f"hf://org/part{number}" for number in (1, 2, 3))
    manifest = cache(store, hub.url, limit="5Mi", artifacts=[{"uri": first}, {"uri": second}])
    where.apply(manifest, namespace=namespace)
    for uri in (first, second):
        wait_for_state(where, namespace, store, uri, "Present")
    patch(where, namespace, store, {"spec": {"artifacts": [{"uri": u} for u in (first, second, third)]}}, "modelcache")
    found = wait_for_state(where, namespace, store, third, "Failed")
    assert found["reason"] == "LimitExceeded"
    assert "2.0 MiB" in found["message"], found
    assert hub.sent(f"/org/part3/resolve/{'a' * 40}/part.bin") == 0
    patch(where, namespace, store, {"spec": {"limit": "8Mi"}}, "modelcache")
    wait_for_state(where, namespace, store, third, "Present")


def test_the_longest_unused_goes_when_room_is_needed(served: Served, store: str, hub: MisbehavingServer) -> None:
    where, namespace = served.cluster, served.namespace
    hub.put_repository("org/old", {"old.bin": bytes(2 * 2**20)}, lfs=("old.bin",))
    hub.put_repository("org/new", {"new.bin": bytes(2 * 2**20)}, lfs=("new.bin",))
    old, new = "hf://org/old", "hf://org/new"
    where.apply(cache(store, hub.url, limit="3Mi", eviction="LRU", artifacts=[{"uri": old}]), namespace=namespace)
    wait_for_state(where, namespace, store, old, "Present")
    patch(where, namespace, store, {"spec": {"artifacts": [{"uri": new}]}}, "modelcache")
    wait_for_state(where, namespace, store, new, "Present", 90)
    found = where.get("modelcache", store, namespace)
    assert found is not None
    assert [one["uri"] for one in found["status"]["artifacts"]] == [new]


def test_an_absent_artifact_is_removed_once_no_model_uses_it(
    served: Served, name: str, store: str, hub: MisbehavingServer
) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(cache(store, hub.url), on(store, name), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 90)
    patch(where, namespace, store, {"spec": {"artifacts": [{"uri": TINY, "state": "Absent"}]}}, "modelcache")

    def refused() -> bool:
        found = entry(where, namespace, store, TINY)
        return found["state"] == "Present" and found.get("reason") == "InUse" and name in found["message"]

    eventually(refused, 20, "InUse")
    where.kubectl("-n", namespace, "delete", "model", name)
    wait_for_state(where, namespace, store, TINY, "Absent", 90)


def test_a_gated_model_fails_with_the_way_out_and_goes_on_once_there_is_a_token(
    served: Served, name: str, store: str, hub: MisbehavingServer
) -> None:
    where, namespace = served.cluster, served.namespace
    for path, resource in hub.resources.items():
        if "/org/tiny" in path:
            resource.token = "hf_secret_of_the_test"
    where.apply(cache(store, hub.url), on(store, name), namespace=namespace)
    message = wait_for_stall(where, namespace, name, "TokenMissing", 60)
    assert "source.secretRef" in message
    assert where.phase(name, namespace) == "Failed"
    where.kubectl(
        "-n", namespace, "create", "secret", "generic", f"{store}-token", "--from-literal=token=hf_secret_of_the_test"
    )
    patch(where, namespace, name, {"spec": {"source": {"secretRef": {"name": f"{store}-token"}}}})
    wait_for_phase(where, namespace, name, "Ready", 90)
    for kind in ("model", "modelcache", "pod", "job", "event"):
        assert "hf_secret_of_the_test" not in where.kubectl("-n", namespace, "get", kind, "-o", "yaml").stdout


def test_a_missing_secret_is_named(served: Served, name: str, store: str, hub: MisbehavingServer) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(cache(store, hub.url), on(store, name, secretRef={"name": "nobody-made-it"}), namespace=namespace)

    def told() -> bool:
        found = conditions(where, namespace, name).get("Ready", ("", "", ""))
        return found[1] == "SecretNotFound" and "nobody-made-it" in found[2]

    eventually(told, 40, "SecretNotFound")
    where.kubectl("-n", namespace, "create", "secret", "generic", "nobody-made-it", "--from-literal=token=any")
    try:
        wait_for_phase(where, namespace, name, "Ready", 90)
    finally:
        where.kubectl("-n", namespace, "delete", "secret", "nobody-made-it")


def test_what_the_backend_cannot_load_is_told_before_the_first_byte(
    served: Served, name: str, store: str, hub: MisbehavingServer
) -> None:
    where, namespace = served.cluster, served.namespace
    header = b'{"weight":{"dtype":"BF16","shape":[1024,1024],"data_offsets":[0,2097152]}}'
    content = len(header).to_bytes(8, "little") + header + bytes(2 * 2**20)
    config = b'{"architectures":["LlamaForCausalLM"],"num_hidden_layers":1,"num_attention_heads":4,"hidden_size":64}'
    files = {"model.safetensors": content, "config.json": config}
    hub.put_repository("org/folder", files, lfs=("model.safetensors",))
    where.apply(cache(store, hub.url), on(store, name, "hf://org/folder"), namespace=namespace)
    message = wait_for_stall(where, namespace, name, "Incompatible", 60)
    assert "vllm" in message
    assert hub.sent(f"/org/folder/resolve/{'a' * 40}/model.safetensors") < 2**20


def test_without_a_cache_the_pod_downloads_by_itself(
    served: Served, name: str, hub: MisbehavingServer, weights: bytes
) -> None:
    where, namespace = served.cluster, served.namespace
    slow(hub, "tiny.gguf", len(weights) // 6)
    with Phases(where, namespace, name) as watched:
        where.apply(own_download(name, hub), namespace=namespace)
        found = wait_for_phase(where, namespace, name, "Ready", 90)
        eventually(lambda: watched.phases[-1:] == ["Ready"], 10)
    assert [phase for phase in watched.phases if phase != "Pending"][-3:] == ["Provisioning", "Loading", "Ready"]
    assert ask(address(where, namespace, name))
    assert found["status"]["provisioning"]["percent"] == 100
    (pod,) = pods(where, namespace, name)
    assert not any("kube-api-access" in volume["name"] for volume in pod["spec"]["volumes"])


def own_download(name: str, hub: MisbehavingServer) -> dict[str, object]:
    """A Model without a cache whose init container asks the hub."""
    variables = [{"name": "HF_ENDPOINT", "value": hub.url}]
    template = {"spec": {"initContainers": [{"name": "provision", "env": variables}]}}
    return llama(name, source={"uri": TINY}, podTemplate=template)


def test_too_much_for_a_pods_own_volume_needs_a_cache_and_goes_on_once_there_is_one(
    served: Served, name: str, hub: MisbehavingServer, weights: bytes
) -> None:
    where, namespace = served.cluster, served.namespace
    large = 3 * 2**20
    hub.put_repository("org/more", {"tiny.gguf": weights, "more.bin": bytes(large)}, lfs=("tiny.gguf", "more.bin"))
    manifest = own_download(name, hub)
    manifest["spec"]["source"] = {"uri": "hf://org/more"}  # type: ignore[index]
    where.apply(manifest, namespace=namespace)
    message = wait_for_stall(where, namespace, name, "CacheRequired", 60)
    assert "ModelCache" in message
    assert hub.sent(f"/org/more/resolve/{'a' * 40}/more.bin") == 0
    where.apply(cache("default", hub.url), namespace=namespace)
    try:
        wait_for_phase(where, namespace, name, "Ready", 90)
        assert conditions(where, namespace, name)["Provisioned"][2].endswith("ModelCache default")
    finally:
        where.kubectl("-n", namespace, "delete", "modelcache", "default")


def test_a_running_model_goes_on_answering_while_other_weights_come(
    served: Served, name: str, store: str, hub: MisbehavingServer, weights: bytes
) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(cache(store, hub.url), on(store, name), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 90)
    hub.put_repository("org/next", {"next.gguf": weights}, lfs=("next.gguf",), rate=len(weights) // 6)
    url = address(where, namespace, name)
    with Phases(where, namespace, name) as watched:
        patch(where, namespace, name, {"spec": {"source": {"uri": "hf://org/next"}}})
        eventually(lambda: ("Updating", "Downloading") in watched.seen, 30, "Updating")
        assert ask(url)
        wait_for_phase(where, namespace, name, "Ready", 90)
    assert "Provisioning" not in watched.phases
    assert "Failed" not in watched.phases
    (pod,) = [one for one in pods(where, namespace, name) if "deletionTimestamp" not in one["metadata"]]
    assert any("next" in argument for argument in pod["spec"]["containers"][0]["args"])


def test_deleting_a_cache_keeps_the_claim_and_its_successor_knows_what_is_there(
    served: Served, store: str, hub: MisbehavingServer
) -> None:
    where, namespace = served.cluster, served.namespace
    kept = cache(store, hub.url, storage={"size": "1Gi"}, artifacts=[{"uri": TINY}])
    where.apply(kept, namespace=namespace)
    wait_for_state(where, namespace, store, TINY, "Present")
    where.kubectl("-n", namespace, "delete", "modelcache", store)
    sent = hub.sent(f"/org/tiny/resolve/{'a' * 40}/tiny.gguf")
    assert where.get("pvc", f"modelcache-{store}", namespace) is not None
    where.apply(kept, namespace=namespace)
    found = wait_for_state(where, namespace, store, TINY, "Present")
    assert found["bytes"] > 0
    assert hub.sent(f"/org/tiny/resolve/{'a' * 40}/tiny.gguf") == sent
    patch(where, namespace, store, {"spec": {"storage": {"reclaim": "Delete"}}}, "modelcache")

    def owned() -> bool:
        claim = where.get("pvc", f"modelcache-{store}", namespace)
        return bool(claim and claim["metadata"].get("ownerReferences"))

    eventually(owned, 20, "the claim's owner")
    where.kubectl("-n", namespace, "delete", "modelcache", store)
    eventually(lambda: where.get("pvc", f"modelcache-{store}", namespace) is None, 40, "the claim goes with its cache")


def test_models_that_are_on_a_volume_already_are_found_and_used_without_a_download(
    served: Served, name: str, store: str
) -> None:
    where, namespace = served.cluster, served.namespace
    found_there = {"claim": "quickstart-weights"}
    where.apply(cache(store, storage=found_there, adopt=True), namespace=namespace)

    def discovered() -> dict[str, object]:
        found = where.get("modelcache", store, namespace)
        assert found is not None
        listed = [one for one in found["status"].get("artifacts", ()) if one.get("file") == "tiny.gguf"]
        assert listed, found["status"]
        assert found["status"]["discovery"]["state"] == "Done", found["status"]
        proposed: dict[str, object] = listed[0]["proposedModel"]
        return proposed

    proposed = eventually(discovered, 60, "the model on the volume")
    assert proposed["backend"] == "llamacpp"
    assert proposed["uri"] == "pvc://quickstart-weights/tiny.gguf"
    where.apply(llama(name, source={"uri": proposed["uri"]}), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    where.kubectl("-n", namespace, "delete", "modelcache", store)
    assert where.get("pvc", "quickstart-weights", namespace) is not None


def test_what_another_tool_downloaded_is_used_by_its_name_on_the_hub(
    served: Served, name: str, store: str, hub: MisbehavingServer
) -> None:
    where, namespace = served.cluster, served.namespace
    commit = "b" * 40
    script = f"""set -e
        mkdir -p /to/hub/models--org--found/blobs /to/hub/models--org--found/refs
        mkdir -p /to/hub/models--org--found/snapshots/{commit}
        cd /to/hub/models--org--found
        cp /to/tiny.gguf blobs/1234
        ln -sf ../../blobs/1234 snapshots/{commit}/found-q4_k_m.gguf
        printf {commit} > refs/main"""
    where.apply(on_claim(f"tree-{store}", script), namespace=namespace)
    where.kubectl("-n", namespace, "wait", "--for=condition=Complete", f"job/tree-{store}", "--timeout=60s")
    where.kubectl("-n", namespace, "delete", "job", f"tree-{store}")
    where.apply(cache(store, hub.url, storage={"claim": "quickstart-weights"}, adopt=True), namespace=namespace)
    uri = f"hf://org/found@{commit}"
    found = wait_for_state(where, namespace, store, uri, "Present")
    eventually(lambda: entry(where, namespace, store, uri).get("proposedModel"), 30, "the proposal")
    assert found["adopted"] is True
    asked = len(hub.seen)
    where.apply(on(store, name, "hf://org/found", files=["*q4_k_m*"]), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    assert ask(address(where, namespace, name))
    assert len(hub.seen) == asked, "nobody asked the hub"


def on_claim(name: str, script: str) -> dict[str, object]:
    """A Job that runs a script in busybox with the weights' claim at /to."""
    documents = yaml.safe_load_all((ROOT / "tests/e2e/weights-on-a-claim.yaml").read_text())
    job: dict[str, object] = next(document for document in documents if document["kind"] == "Job")
    pod = job["spec"]["template"]["spec"]  # type: ignore[index]
    pod["containers"][0] |= {"image": BUSYBOX, "command": ["sh", "-c", script]}
    job["metadata"] = {"name": name}
    return job


def test_a_download_survives_the_operators_end(
    served: Served, store: str, hub: MisbehavingServer, tmp_path: Path
) -> None:
    where, namespace = served.cluster, served.namespace
    content = bytes(range(256)) * 4096 * 8
    hub.put_repository("org/long", {"long.bin": content}, lfs=("long.bin",), rate=2 * 2**20)
    uri = "hf://org/long"
    where.apply(cache(store, hub.url, artifacts=[{"uri": uri}]), namespace=namespace)
    eventually(lambda: (entry(where, namespace, store, uri).get("percent") or 0) > 10, 60, "some of the download")
    served.operator.kill()
    served.operator.start(wait_until_leading=True)
    wait_for_state(where, namespace, store, uri, "Present", 90)
    assert hub.sent(f"/org/long/resolve/{'a' * 40}/long.bin") == len(content), "one download, and no second one"


def test_pods_of_a_cache_have_no_rights_and_bear_the_restricted_standard(
    served: Served, store: str, hub: MisbehavingServer, weights: bytes
) -> None:
    where, namespace = served.cluster, served.namespace
    slow(hub, "tiny.gguf", len(weights) // 4)
    where.apply(cache(store, hub.url, artifacts=[{"uri": TINY}]), namespace=namespace)
    (pod,) = eventually(lambda: download_pods(where, namespace, store), 30, "the Pod of the download")
    assert not any("kube-api-access" in volume["name"] for volume in pod["spec"]["volumes"])
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    wait_for_state(where, namespace, store, TINY, "Present")
