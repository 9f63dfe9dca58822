"""`hack/bench reconcile`: how fast Models become children, and what a quiet cluster costs."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
from kubernetes.aio.client.api_client import ApiClient

import walkthrough
from benchmarks import installed
from benchmarks.observing import Appearances, AuditLog, ProcessMeter, by_verb, percentile, watch, writes
from berth.api.base import API_VERSION
from berth.api.model import ModelSpec, RolloutStrategy
from berth.cluster import resources
from berth.cluster.connection import connect
from berth.cluster.gateway import Gateway
from berth.planning.children import ModelIdentity, desired_children
from berth.planning.pod_template import render_pod_template
from berth.planning.render_settings import RenderSettings
from localcluster import api

ROOT = Path(__file__).resolve().parents[2]
CONCURRENCY = 32
CHILDREN = ("deployments", "services", "networkpolicies")


def model(namespace: str, name: str) -> dict[str, Any]:
    """A Model as a person would write it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Model",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "backend": "llamacpp",
            "source": {"uri": "pvc://weights/model.gguf"},
            "gpus": {"count": 0},  # on no node at all: what waits for GPUs is measured by `hack/bench capacity`
            "limits": {"cpu": "2", "memory": "8Gi"},
            "serving": {"contextLength": 4096},
        },
    }


async def at_once(items: list[Any], work: Callable[[Any], Awaitable[Any]], concurrency: int = CONCURRENCY) -> None:
    """Do the work for all items, so many side by side."""
    waiting = iter(items)

    async def loop() -> None:
        for item in waiting:
            await work(item)

    await asyncio.gather(*(loop() for _ in range(concurrency)))


async def until(check: Callable[[], bool], seconds: float, what: str, interval: float = 0.05) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not happen within {seconds:.0f} s")
        await asyncio.sleep(interval)


async def bare_loop(gateway: Gateway, count: int) -> float:
    """Seconds for the same writes to the same server by a bare client: Models and children, no controller between."""
    namespace, settings = "bare", RenderSettings()
    manifests = []
    for number in range(count):
        wanted = model(namespace, f"m{number}")
        spec, identity = ModelSpec.model_validate(wanted["spec"]), ModelIdentity(namespace, f"m{number}", "")
        template = render_pod_template(identity.name, namespace, spec, settings)
        children = desired_children(identity, spec, settings, template, replicas=1, strategy=RolloutStrategy.IN_PLACE)
        for child in children:
            del child["metadata"]["ownerReferences"]  # the garbage collector would remove them
        manifests.append([wanted, *children])

    async def write(group: list[dict[str, Any]]) -> None:
        await gateway.apply(group[0], force=False)
        await asyncio.gather(*(gateway.apply(child, force=False) for child in group[1:]))

    began = time.monotonic()
    await at_once(manifests, write)
    return time.monotonic() - began


async def empty(gateway: Gateway, kubectl: walkthrough.Kubectl, namespace: str) -> None:
    """Remove a namespace and wait until nothing of it is left, so that it does not burden what comes next."""
    kubectl("delete", "namespace", namespace, "--wait=false")

    async def gone() -> bool:
        listed, _ = await gateway.list(resources.NAMESPACES, metadata_only=True)
        return all(item["metadata"]["name"] != namespace for item in listed)

    deadline = time.monotonic() + 600
    while not await gone():
        if time.monotonic() > deadline:
            raise RuntimeError(f"namespace {namespace} did not go within 600 s")
        await asyncio.sleep(1)


@asynccontextmanager
async def operator(kubeconfig: Path, folder: Path, *flags: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The operator as a process of its own, with its own rights."""
    log = folder / f"operator-{time.monotonic_ns()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: ASYNC220 - forking blocks for a moment, before anything is measured
            [sys.executable, "-m", "berth", "operator", "--kubeconfig", str(kubeconfig), "--host", "127.0.0.1",
             "--port", "0", "--log-format", "text", *flags],
            stdout=file,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            await until(
                lambda: b"leading as" in log.read_bytes() or process.poll() is not None, 30, "the operator's start"
            )
            if process.poll() is not None:
                raise RuntimeError(f"the operator ended: {log.read_text()}")
            yield process
        finally:
            process.terminate()
            process.wait(20)


async def settled(audit: AuditLog, gateway: Gateway, namespace: str, calm: float = 10.0) -> None:
    """Wait until every status is about its Model's generation and nothing was written for `calm` seconds."""
    deadline = time.monotonic() + 600
    while True:
        mark = audit.mark()
        await asyncio.sleep(calm)
        listed, _ = await gateway.list(resources.MODELS, namespace=namespace)
        fresh = all(item["status"]["observedGeneration"] == item["metadata"]["generation"] for item in listed)
        if fresh and writes(audit.since(mark)) == 0:
            return
        if time.monotonic() > deadline:
            raise RuntimeError("the Models did not settle within 600 s")


def delays(appearances: Appearances, later: str, earlier: str, keys: list[str]) -> list[float]:
    """Seconds from the appearance of one object to that of another of the same name."""
    return [appearances.of(later)[key] - appearances.of(earlier)[key] for key in keys]


async def run(models: int, singles: int, quiet: float) -> dict[str, Any]:
    """All figures of the benchmark; see docs/benchmarks.md for their meaning."""
    name = f"bench-{os.getpid()}"
    cluster = api.ensure(name, control_plane=True, audit=True)
    try:
        with tempfile.TemporaryDirectory(prefix="berth-bench-") as folder:
            kubectl = walkthrough.Kubectl(str(cluster.kubectl), cluster.kubeconfig)
            installed.install(kubectl)
            client = await connect(cluster.kubeconfig, pool_size=128)
            try:
                assert cluster.audit_log is not None
                token = installed.operator_kubeconfig(kubectl, cluster.kubeconfig, Path(folder))
                audit = AuditLog(cluster.audit_log)
                return await measure(kubectl, client, token, audit, Path(folder), models, singles, quiet)
            finally:
                await client.close()
    finally:
        api.delete(name)


async def measure(
    kubectl: walkthrough.Kubectl,
    client: ApiClient,
    token: Path,
    audit: AuditLog,
    folder: Path,
    models: int,
    singles: int,
    quiet: float,
) -> dict[str, Any]:
    """The run itself: bare loop, burst, settling, singles, quiet, restart."""
    gateway = Gateway(client, concurrency=96)
    for namespace in ("bare", "bench"):
        kubectl("create", "namespace", namespace)
    click.echo(f"bare loop: {models} Models with their children", err=True)
    bare = await bare_loop(gateway, models)
    click.echo(f"  {bare:.1f} s; clearing up", err=True)
    await empty(gateway, kubectl, "bare")

    appearances = Appearances()
    paths = {
        "models": "/apis/berth.dev/v1alpha1/models",
        "deployments": "/apis/apps/v1/deployments",
        "replicasets": "/apis/apps/v1/replicasets",
        "services": "/api/v1/services",
        "networkpolicies": "/apis/networking.k8s.io/v1/networkpolicies",
    }
    watches = [asyncio.create_task(watch(client, path, plural, appearances)) for plural, path in paths.items()]
    try:
        async with operator(token, folder) as process:
            meter = ProcessMeter(process.pid)
            figures: dict[str, Any] = {"models": models}
            mark = audit.mark()
            cpu = meter.cpu_seconds()
            click.echo(f"operator: {models} Models at once", err=True)
            began = time.monotonic()
            await at_once([model("bench", f"m{n}") for n in range(models)], lambda m: gateway.apply(m, force=False))
            applied = time.monotonic() - began
            await until(
                lambda: all(appearances.count(kind, "bench") >= models for kind in CHILDREN), 600, "all children"
            )
            keys = [f"bench/m{n}" for n in range(models)]
            seconds = max(appearances.of(kind)[key] for kind in CHILDREN for key in keys) - began
            figures |= {
                "seconds": round(seconds, 2),
                "bare_seconds": round(bare, 2),
                "ratio_to_bare": round(bare / seconds, 3),
                "models_applied_seconds": round(applied, 2),
                "apply_to_deployment_ms": spread(delays(appearances, "deployments", "models", keys)),
                "burst_cpu_seconds": round(meter.cpu_seconds() - cpu, 2),
            }
            click.echo(f"  {seconds:.1f} s, ratio {figures['ratio_to_bare']}; settling", err=True)
            await settled(audit, gateway, "bench")
            requests = audit.since(mark)
            figures["writes_per_model"] = round(writes(requests) / models, 3)
            figures["requests_per_model_by_verb"] = {
                verb: round(count / models, 3) for verb, count in sorted(by_verb(requests).items())
            }
            click.echo(f"  {figures['writes_per_model']} writes per Model; {singles} single ones", err=True)
            figures |= await one_by_one(gateway, appearances, singles)
            await settled(audit, gateway, "bench")
            click.echo(f"  p50 {figures['single_apply_ms']['p50']} ms; {quiet:.0f} s of quiet", err=True)
            mark, cpu, began = audit.mark(), meter.cpu_seconds(), time.monotonic()
            await asyncio.sleep(quiet)
            passed = time.monotonic() - began
            figures |= {
                "quiet_writes_per_minute": round(writes(audit.since(mark)) / passed * 60, 2),
                "quiet_cpu_percent": round((meter.cpu_seconds() - cpu) / passed * 100, 2),
                "rss_mib": meter.rss_mib(),
            }
        click.echo("restart with nothing changed", err=True)
        mark = audit.mark()
        async with operator(token, folder):
            await asyncio.sleep(15)
            figures["restart_writes"] = writes(audit.since(mark))
    finally:
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
    return figures


def spread(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds of seconds."""
    return {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99)}


async def one_by_one(gateway: Gateway, appearances: Appearances, singles: int) -> dict[str, Any]:
    """One Model every 200 ms: to its Deployment, and beside it from Deployment to ReplicaSet."""
    for number in range(singles):
        due = time.monotonic() + 0.2
        await gateway.apply(model("bench", f"single{number}"), force=False)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    keys = [f"bench/single{number}" for number in range(singles)]
    await until(lambda: all(key in appearances.of("replicasets") for key in keys), 60, "the single Models")
    return {
        "single_apply_ms": spread(delays(appearances, "deployments", "models", keys)),
        "controller_manager_ms": spread(delays(appearances, "replicasets", "deployments", keys)),
    }
