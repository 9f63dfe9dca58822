"""The demonstration behind `hack/demo`: from nothing to an answer of a real inference server in a Pod."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import yaml

import pinnedtools
import tinymodel
from localcluster import api, images
from localcluster.errors import ClusterError

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = "demo"
OPERATOR = ("--namespace", "berth-system")
MODEL_FILE = "qwen2.5-0.5b-instruct-q4_k_m.gguf"
QUESTION = "What does a model lifecycle manager do?"


class DemoError(Exception):
    """What went wrong, in a sentence for the person at the terminal."""


def say(text: str) -> None:
    """A line of the story."""
    click.echo(click.style("==> ", fg="cyan", bold=True) + text)


class Kubectl:
    """kubectl on one cluster, in the namespace of its kubeconfig."""

    def __init__(self, path: str, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
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


def values(image: str, built: str = "", local: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Values of the chart: this image, and what else. Another build makes other Pods, also of the same name."""
    named, _, digest = image.partition("@")
    repository, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:  # a colon in front of a port
        repository, tag = named, ""
    annotations = {"berth.dev/built": built} if built else {}
    return {
        "image": {"registry": "", "repository": repository, "tag": tag, "digest": digest},
        "operator": {"podAnnotations": annotations, **(local or {})},
    }


def install(kubectl: Kubectl, chosen: dict[str, Any]) -> None:
    """The chart with these values; returns when the operator is Ready."""
    command = (str(pinnedtools.helm()), "upgrade", "--install", "berth", str(ROOT / "charts/berth"), *OPERATOR)
    # A cluster of an earlier demonstration may have objects that Helm did not make.
    further = ("--create-namespace", "--take-ownership", "--wait", "--timeout=2m", "--values=-")
    done = subprocess.run(
        (*command, f"--kubeconfig={kubectl.kubeconfig}", *further),
        input=yaml.safe_dump(chosen),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise DemoError(f"helm upgrade --install berth failed: {done.stderr.strip()}")


def operator_state(kubectl: Kubectl) -> str:
    """The operator's Pods and the last lines of their logs, for an error message."""
    selector = ("--selector", "app.kubernetes.io/component=operator")
    return kubectl(*OPERATOR, "get", "pods", *selector, check=False) + kubectl(
        *OPERATOR, "logs", *selector, "--tail=15", "--prefix", "--ignore-errors", check=False
    )


def prepare_hub(kubectl: Kubectl, folder: Path, image: str) -> None:
    """A stand-in for the hub in the cluster, so that the quickstart needs no network, and a ModelCache that asks it."""
    weights = folder / "tiny.gguf"
    tinymodel.write(weights)
    size = weights.stat().st_size // 1024
    say(f"a stand-in for the hub: it gives away a tiny random model ({size} KiB) under the quickstart's name, slowly")
    files = (f"--from-file={ROOT}/hack/standin_hub.py", f"--from-file={MODEL_FILE}={weights}")
    made = kubectl("create", "configmap", "standin-hub", *files, "--dry-run=client", "-o", "yaml")
    kubectl("apply", "--server-side", "-f", "-", stdin=made)
    manifest = (ROOT / "hack/standin-hub.yaml").read_text().replace(images.BERTH_IMAGE, image)
    kubectl("apply", "-f", "-", stdin=manifest)
    kubectl("rollout", "status", "deployment/standin-hub", "--timeout=120s")


def watch_phases(kubectl: Kubectl, seconds: float) -> None:
    """Print each phase as it passes, until the Model is Ready."""
    began = time.monotonic()
    shown = ""
    while True:
        status = kubectl.model("quickstart")["status"]
        ready: dict[str, str] = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
        phase = status.get("phase", "")  # nobody has looked at it yet
        line = f"{phase:<12} {ready.get('reason', ''):<18} {ready.get('message', '')}"
        if line != shown:
            click.echo(f"    {time.monotonic() - began:5.1f} s  {line}")
            shown = line
        if phase == "Ready":
            return
        if phase == "Failed" or time.monotonic() - began > seconds:
            raise DemoError(
                f"the Model is {phase or 'not seen'} after {time.monotonic() - began:.0f} s: {ready.get('message', '')}"
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
@click.option("--image", help="With --kubeconfig: the name of Berth's image in a registry that the cluster pulls from.")
@click.option("--keep", is_flag=True, help="Leave the local cluster up afterwards.")
def main(kubeconfig: Path | None, image: str | None, keep: bool) -> None:
    """Bring up a cluster, install Berth, run a Model and ask it something. Exits 0 only when the model answered."""
    began = time.monotonic()
    if kubeconfig is not None and image is None:
        raise click.UsageError(
            "your cluster pulls Berth's image from a registry: push it there (hack/image build makes it) "
            "and name it with --image"
        )
    if kubeconfig is None and image is not None:
        raise click.UsageError(
            "a local cluster runs the image of this checkout; leave out --image, or add --kubeconfig"
        )
    try:
        with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="berth-demo-") as folder:
            if kubeconfig is not None and image is not None:
                kubectl = Kubectl("kubectl", kubeconfig)
                demonstrate(kubectl, Path(folder), values(image), image)
                kubectl(
                    "delete", "-f", str(ROOT / "examples/quickstart.yaml"), "-f", str(ROOT / "hack/standin-hub.yaml")
                )
                say("Berth stays installed; to remove it: helm uninstall berth --namespace berth-system")
            else:
                kubectl, chosen = local_cluster(stack, keep)
                demonstrate(kubectl, Path(folder), chosen, images.BERTH_IMAGE)
    except (DemoError, ClusterError, pinnedtools.ToolError) as error:
        sys.exit(f"{click.style('demo failed:', fg='red', bold=True)} {error}")
    say(f"done in {time.monotonic() - began:.0f} s")


def local_cluster(stack: ExitStack, keep: bool) -> tuple[Kubectl, dict[str, Any]]:
    """A local cluster with Berth's image, and the chart's values that run the operator from it."""
    say("bringing up a local cluster (the first time builds Kubernetes, about 8 minutes on 2 cores)")
    existed = api.exists(CLUSTER)
    cluster = api.ensure(CLUSTER)
    if keep:
        stack.callback(
            lambda: say(
                f"the cluster stays up: export KUBECONFIG={cluster.kubeconfig}; hack/cluster down --name {CLUSTER}"
            )
        )
    elif not existed:
        stack.callback(api.delete, CLUSTER)
        stack.callback(say, "taking the cluster down")
    say("loading Berth's image (the first time builds it, half a minute)")
    archive = images.berth()
    api.load_image(CLUSTER, archive)
    local = {"logFormat": "text", "backendImages": {"llamacpp": images.LLAMA_IMAGE}}
    return Kubectl(str(cluster.kubectl), cluster.kubeconfig), values(images.BERTH_IMAGE, archive.stem, local)


def demonstrate(kubectl: Kubectl, folder: Path, chosen: dict[str, Any], image: str) -> None:
    """The story itself."""
    say("helm install berth charts/berth")
    try:
        install(kubectl, chosen)
        prepare_hub(kubectl, folder, image)
        say("kubectl apply -f examples/quickstart.yaml")
        kubectl("apply", "-f", str(ROOT / "examples/quickstart.yaml"))
        watch_phases(kubectl, 300)
    except DemoError as error:
        raise DemoError(f"{error}\n{operator_state(kubectl)}") from error
    say("kubectl get models,modelcaches")
    click.echo(kubectl("get", "models,modelcaches"))
    say(f"asking: {QUESTION}")
    click.echo("    " + click.style(ask(kubectl), fg="green"))
    click.echo("    (a random model of half a megabyte: real tokens from a real llama-server, without any sense)")


if __name__ == "__main__":
    main()
