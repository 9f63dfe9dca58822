"""The demonstration behind `hack/demo`: from nothing to an answer of a real inference server in a Pod."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import yaml

import tinymodel
from localcluster import api

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = "demo"
QUESTION = "What does a model lifecycle manager do?"


class DemoError(Exception):
    """What went wrong, in a sentence for the person at the terminal."""


def say(text: str) -> None:
    """A line of the story."""
    click.echo(click.style("==> ", fg="cyan", bold=True) + text)


class Kubectl:
    """kubectl on one cluster, in the namespace of its kubeconfig."""

    def __init__(self, path: str, kubeconfig: Path) -> None:
        self._command = [path, "--kubeconfig", str(kubeconfig)]

    def __call__(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """Its output. A failure is an error of the demonstration, unless `check` is off."""
        done = subprocess.run([*self._command, *args], input=stdin, capture_output=True, text=True)
        if check and done.returncode:
            raise DemoError(f"kubectl {' '.join(args)} failed: {done.stderr.strip()}")
        return done.stdout

    def popen(self, *args: str) -> subprocess.Popen[str]:
        """kubectl in the background, with its output to read."""
        return subprocess.Popen([*self._command, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def model(self, name: str) -> dict[str, Any]:
        """A Model as the API server shows it."""
        shown: dict[str, Any] = json.loads(self("get", "model", name, "-o", "json"))
        return shown


def wait_for(check: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first truthy answer of `check` within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise DemoError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.1)
    return answer


def install(kubectl: Kubectl) -> None:
    """The CRDs, the operator's identity and its rights."""
    kubectl("apply", "-f", str(ROOT / "crds"))
    served = ("api-resources", "--api-group=berth.dev", "--output=name")  # `kubectl wait` fails on a CRD just made
    wait_for(lambda: "models.berth.dev" in kubectl(*served, check=False), 30, "the API server's serving of Models")
    kubectl("apply", "-f", str(ROOT / "deploy/operator.yaml"))
    kubectl("apply", "-f", str(ROOT / "deploy/rbac.yaml"))
    wait_for(
        lambda: kubectl("-n", "berth-system", "get", "serviceaccount", "berth-operator", "-o", "name", check=False),
        30,
        "the operator's ServiceAccount",
    )


def operator_kubeconfig(kubectl: Kubectl, admin: Path, folder: Path) -> Path:
    """A kubeconfig with the operator's own token: it has the rights of its ClusterRole and no others."""
    token = kubectl("-n", "berth-system", "create", "token", "berth-operator", "--duration=8h").strip()
    config = yaml.safe_load(admin.read_text())
    cluster = next(
        entry
        for entry in config["clusters"]
        for context in config["contexts"]
        if context["name"] == config["current-context"] and entry["name"] == context["context"]["cluster"]
    )
    path = folder / "operator.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "users": [{"name": "operator", "user": {"token": token}}],
                "contexts": [{"name": "operator", "context": {"cluster": cluster["name"], "user": "operator"}}],
                "current-context": "operator",
            }
        )
    )
    return path


@contextmanager
def running_operator(kubeconfig: Path, folder: Path, images: dict[str, str]) -> Iterator[Path]:
    """The operator as a process beside the cluster; yields its log."""
    log = folder / "operator.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "berth", "operator", "--kubeconfig", str(kubeconfig),
                "--host", "127.0.0.1", "--port", "0", "--log-format", "text",
                *(flag for name, image in images.items() for flag in ("--image", f"{name}={image}")),
            ],
            stdout=file,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_for(
                lambda: process.poll() is not None or "leading as" in log.read_text(), 30, "the start of the operator"
            )
            if process.poll() is not None:
                raise DemoError(f"the operator ended:\n{log.read_text()}")
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def prepare_weights(kubectl: Kubectl, folder: Path, local: bool) -> None:
    """A tiny GGUF, made on the spot, onto the claim that the quickstart names."""
    weights = folder / "tiny.gguf"
    tinymodel.write(weights)
    say(f"made a tiny random model: {weights.stat().st_size // 1024} KiB of GGUF, put onto a claim by a Job")
    made = kubectl(
        "create", "configmap", "quickstart-weights", f"--from-file={weights}", "--dry-run=client", "-o", "yaml"
    )
    kubectl("apply", "--server-side", "-f", "-", stdin=made)
    manifest = (ROOT / "examples/quickstart-weights.yaml").read_text()
    if local:
        manifest = manifest.replace("image: busybox:1", "image: localhost/busybox:1")
    kubectl("apply", "-f", "-", stdin=manifest)
    kubectl("wait", "--for=condition=Complete", "job/quickstart-weights", "--timeout=120s")


def watch_phases(kubectl: Kubectl, seconds: float) -> None:
    """Print each phase as it passes, until the Model is Ready."""
    began = time.monotonic()
    shown = ""
    while True:
        status = kubectl.model("quickstart")["status"]
        ready = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
        line = f"{status['phase']:<10} {ready.get('reason', ''):<18} {ready.get('message', '')}"
        if line != shown:
            click.echo(f"    {time.monotonic() - began:5.1f} s  {line}")
            shown = line
        if status["phase"] == "Ready":
            return
        if status["phase"] == "Failed" or time.monotonic() - began > seconds:
            raise DemoError(
                f"the Model is {status['phase']} after {time.monotonic() - began:.0f} s: {ready.get('message', '')}"
            )
        time.sleep(0.05)


def ask(kubectl: Kubectl) -> str:
    """One chat request through `kubectl port-forward` to the Model's Service."""
    forward = kubectl.popen("port-forward", "service/quickstart", ":80")
    try:
        assert forward.stdout is not None
        first = forward.stdout.readline()  # Forwarding from 127.0.0.1:PORT -> 8080
        if "->" not in first:
            raise DemoError("kubectl port-forward did not start")
        port = first.split(" ->")[0].rsplit(":", 1)[1]
        body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 24}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text: str = json.load(answer)["choices"][0]["message"]["content"]
    except (urllib.error.URLError, KeyError, ValueError) as error:
        raise DemoError(f"the model did not answer: {error}") from error
    finally:
        forward.terminate()
        forward.wait(10)
    if not text:
        raise DemoError("the model answered with nothing")
    return text


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Use this existing cluster; without it a local one is made.",
)
@click.option("--keep", is_flag=True, help="Leave the local cluster up afterwards.")
def main(kubeconfig: Path | None, keep: bool) -> None:
    """Bring up a cluster, install Berth, run a Model and ask it something. Exits 0 only when the model answered."""
    began = time.monotonic()
    try:
        with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="berth-demo-") as folder:
            demonstrate(stack, Path(folder), kubeconfig, keep)
    except (DemoError, RuntimeError) as error:
        sys.exit(f"{click.style('demo failed:', fg='red', bold=True)} {error}")
    say(f"done in {time.monotonic() - began:.0f} s")


def demonstrate(stack: ExitStack, folder: Path, kubeconfig: Path | None, keep: bool) -> None:
    """The story itself."""
    if kubeconfig is None:
        say("bringing up a local cluster (the first time builds Kubernetes, about 8 minutes on 2 cores)")
        existed = api.exists(CLUSTER)
        cluster = api.ensure(CLUSTER)
        if not keep and not existed:
            stack.callback(lambda: (say("taking the cluster down"), api.delete(CLUSTER)))
        admin, path = Path(cluster.kubeconfig), str(cluster.kubectl)
        images = {"llamacpp": "localhost/llama-server:11669"}
    else:
        admin, path, images = kubeconfig, "kubectl", {}
    kubectl = Kubectl(path, admin)
    say("installing Berth: CRDs, ServiceAccount, rights")
    install(kubectl)
    say("starting the operator beside the cluster, with its own ServiceAccount's token")
    log = stack.enter_context(running_operator(operator_kubeconfig(kubectl, admin, folder), folder, images))
    prepare_weights(kubectl, folder, local=kubeconfig is None)
    say("kubectl apply -f examples/quickstart.yaml")
    kubectl("apply", "-f", str(ROOT / "examples/quickstart.yaml"))
    try:
        watch_phases(kubectl, 300)
    except DemoError as error:
        raise DemoError(f"{error}\n{log.read_text()[-2000:]}") from error
    say("kubectl get models")
    click.echo(kubectl("get", "models"))
    say(f"asking: {QUESTION}")
    click.echo("    " + click.style(ask(kubectl), fg="green"))
    click.echo("    (a random model of half a megabyte: real tokens from a real llama-server, without any sense)")
    if keep or kubeconfig is not None:
        say(
            "cleaning up later: kubectl delete model quickstart"
            + ("" if kubeconfig else f"; hack/cluster down --name {CLUSTER}")
        )
        say(f"KUBECONFIG={os.path.relpath(admin) if kubeconfig else admin}")
    if kubeconfig is not None:
        kubectl("delete", "-f", str(ROOT / "examples/quickstart.yaml"))


if __name__ == "__main__":
    main()
