"""`hack/bench start`: how long several Models take from apply to Ready, beside the same servers made by hand."""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml
from kubernetes.aio.client.api_client import ApiClient

import tinymodel
import walkthrough
from benchmarks import installed
from benchmarks.reconcile import at_once, operator
from berth.api.base import API_VERSION
from berth.api.model import BackendName, ModelSpec, RolloutStrategy
from berth.cluster import resources
from berth.cluster.connection import connect
from berth.cluster.gateway import Gateway
from berth.planning.children import ModelIdentity, desired_children
from berth.planning.pod_template import render_pod_template
from berth.planning.render_settings import RenderSettings
from localcluster import api, images

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "localhost/llama-server:11669"
NAMESPACE = "bench"
CLAIM = "quickstart-weights"
PATIENCE = 180.0


def spec() -> dict[str, Any]:
    """A small real model on a real llama-server, with one of the node's GPUs, which are only numbers here."""
    return {
        "backend": "llamacpp",
        "source": {"uri": f"pvc://{CLAIM}/tiny.gguf"},
        "gpus": {"count": 1, "memory": "1Gi"},
        "shutdown": {"drainTimeout": "1s", "gracePeriod": "1s"},
    }


async def run(models: int, repetitions: int) -> dict[str, Any]:
    """All figures of the benchmark; see docs/benchmarks.md for their meaning."""
    name = f"bench-{os.getpid()}"
    cluster = api.ensure(name)
    try:
        with tempfile.TemporaryDirectory(prefix="berth-bench-") as folder:
            kubectl = walkthrough.Kubectl(str(cluster.kubectl), cluster.kubeconfig)
            installed.install(kubectl)
            for archive in (images.llama_server(), images.busybox(), images.berth()):
                api.load_image(name, archive)
            kubectl("create", "namespace", NAMESPACE)
            put_weights(kubectl, Path(folder))
            client = await connect(cluster.kubeconfig, pool_size=32)
            try:
                token = installed.operator_kubeconfig(kubectl, cluster.kubeconfig, Path(folder))
                return await measure(client, token, Path(folder), models, repetitions)
            finally:
                await client.close()
    finally:
        api.delete(name)


def put_weights(kubectl: walkthrough.Kubectl, folder: Path) -> None:
    """A tiny model on a claim."""
    weights = folder / "tiny.gguf"
    tinymodel.write(weights)
    kubectl("-n", NAMESPACE, "create", "configmap", CLAIM, f"--from-file={weights}")
    documents = list(yaml.safe_load_all((ROOT / "tests/e2e/weights-on-a-claim.yaml").read_text()))
    for container in documents[1]["spec"]["template"]["spec"]["containers"]:
        container["image"] = "localhost/busybox:1"
    kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
    kubectl("-n", NAMESPACE, "wait", "--for=condition=Complete", f"job/{CLAIM}", "--timeout=120s")


async def measure(client: ApiClient, token: Path, folder: Path, models: int, repetitions: int) -> dict[str, Any]:
    """By hand, all at once through Berth, and one after the other as Berth does by default; medians."""
    gateway = Gateway(client, concurrency=32)
    seconds: dict[str, list[float]] = {"by_hand": [], "berth": [], "berth_one_load_at_a_time": []}
    flags = ("--image", f"llamacpp={IMAGE}", "--provisioner-image", "localhost/berth:dev")
    await by_hand(gateway, models)  # the node has seen the images then
    for _ in range(repetitions):
        seconds["by_hand"].append(await by_hand(gateway, models))
        async with operator(token, folder, *flags, "--loads-per-node", str(models)):
            seconds["berth"].append(await by_berth(gateway, models))
        async with operator(token, folder, *flags):
            seconds["berth_one_load_at_a_time"].append(await by_berth(gateway, models))
        click.echo("  ".join(f"{name} {values[-1]:.1f} s" for name, values in seconds.items()), err=True)
    medians = {f"{name}_seconds": round(statistics.median(values), 2) for name, values in seconds.items()}
    ratio = statistics.median(hand / ours for hand, ours in zip(seconds["by_hand"], seconds["berth"], strict=True))
    return {"models": models, "repetitions": repetitions, **medians, "ratio_to_by_hand": round(ratio, 3)}


async def by_hand(gateway: Gateway, models: int) -> float:
    """Seconds until the same Deployments answer when they are applied as they are."""
    wanted = ModelSpec.model_validate(spec())
    settings = RenderSettings(images={BackendName.LLAMACPP: IMAGE}, provisioner_image="localhost/berth:dev")
    manifests = []
    for number in range(models):
        name = f"hand{number}"
        template = render_pod_template(name, NAMESPACE, wanted, settings)
        identity = ModelIdentity(NAMESPACE, name, "")
        manifests += desired_children(
            identity, wanted, settings, template, replicas=1, strategy=RolloutStrategy.IN_PLACE
        )
    for manifest in manifests:
        del manifest["metadata"]["ownerReferences"]
    began = time.monotonic()
    await at_once(manifests, lambda manifest: gateway.apply(manifest, force=False))

    def ready(found: dict[str, Any]) -> bool:
        return bool((found.get("status") or {}).get("readyReplicas"))

    passed = await until_all(gateway, resources.DEPLOYMENTS, models, ready, began)
    await asyncio.gather(*(remove(gateway, manifest) for manifest in manifests))
    await no_pods(gateway)
    return passed


async def by_berth(gateway: Gateway, models: int) -> float:
    """Seconds until as many Models are Ready."""
    wanted = [
        {
            "apiVersion": API_VERSION,
            "kind": "Model",
            "metadata": {"name": f"model{n}", "namespace": NAMESPACE},
            "spec": spec(),
        }
        for n in range(models)
    ]
    began = time.monotonic()
    await at_once(wanted, lambda one: gateway.apply(one, force=False))

    def ready(found: dict[str, Any]) -> bool:
        return bool(found["status"].get("phase") == "Ready")

    passed = await until_all(gateway, resources.MODELS, models, ready, began)
    await asyncio.gather(*(remove(gateway, one) for one in wanted))
    await no_pods(gateway)
    return passed


async def until_all(
    gateway: Gateway,
    resource: resources.ResourceType,
    count: int,
    ready: Callable[[dict[str, Any]], bool],
    began: float,
) -> float:
    """Seconds since `began` until so many objects are ready."""
    while True:
        listed, _ = await gateway.list(resource, namespace=NAMESPACE)
        if sum(map(ready, listed)) >= count:
            return time.monotonic() - began
        if time.monotonic() - began > PATIENCE:
            raise RuntimeError(f"the {resource.plural} were not ready within {PATIENCE:.0f} s")
        await asyncio.sleep(0.05)


async def remove(gateway: Gateway, manifest: dict[str, Any]) -> None:
    """Delete what was applied."""
    resource, name = resources.of(manifest), manifest["metadata"]["name"]
    found = await gateway.get(resource, NAMESPACE, name)
    await gateway.delete(resource, NAMESPACE, name, uid=found["metadata"]["uid"], resource_version=None)


async def no_pods(gateway: Gateway) -> None:
    """Wait until nothing of the last run is in the way of the next one."""
    began = time.monotonic()
    while True:
        pods, _ = await gateway.list(resources.PODS, namespace=NAMESPACE, label_selector="berth.dev/model")
        if not pods:
            return
        if time.monotonic() - began > PATIENCE:
            raise RuntimeError(f"the servers did not end within {PATIENCE:.0f} s")
        await asyncio.sleep(0.2)
