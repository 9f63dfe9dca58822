"""`hack/soak`: a cluster, an operator beside it, and the cycles."""

import json
import os
import signal
import sys
import tempfile
import time
import uuid
from pathlib import Path

import click

from localcluster import api, images
from soak.cycling import Soak
from support.kube import Cluster, eventually
from support.models import Served
from support.operator_process import ROOT, OperatorProcess, grant
from support.weights import put_weights


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--cycles", default=100, show_default=True, type=click.IntRange(1, 100000), help="Starts and stops.")
@click.option(
    "--kills",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the cycles with a kill -9: of operator, containerd, a server or a shim.",
)
@click.option("--seed", type=int, help="Of what is left to chance.  [default: another one each time]")
@click.option("--name", help="Cluster to use, made where it is missing.  [default: one of its own, removed afterwards]")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file.")
def main(cycles: int, kills: float, seed: int | None, name: str | None, file: Path | None) -> None:
    """Start and stop a Model under load, over and over, with rollouts, evictions, node drains and kills in between.

    Exits with 1 when a request was lost or something was left behind. Ctrl-C ends it after the cycle that runs.
    """
    seed = int(time.time()) if seed is None else seed
    cluster_name = name or f"soak-{os.getpid()}"
    made = api.ensure(cluster_name)
    try:
        with tempfile.TemporaryDirectory(prefix="berth-soak-") as folder:
            cluster = Cluster(cluster_name, Path(made.kubeconfig), Path(made.kubectl))
            figures = {"seed": seed, **soak(cluster, Path(folder), cycles, kills, seed)}
    finally:
        if name is None:
            api.delete(cluster_name)
    text = json.dumps(figures, indent=2)
    if file is not None:
        file.write_text(text + "\n")
    click.echo(text)
    lost = ("failed_new_connections", "cut_streams", "leaked_objects", "leaked_processes")
    sys.exit(1 if any(figures[name] for name in lost) else 0)


def soak(cluster: Cluster, folder: Path, cycles: int, kills: float, seed: int) -> dict[str, object]:
    """The figures, from a namespace of its own."""
    cluster.kubectl("apply", "-f", str(ROOT / "crds"))
    served = ("api-resources", "--api-group=berth.dev", "--output=name")
    eventually(lambda: "models.berth.dev" in cluster.kubectl(*served).stdout, 30, "the API server's serving of Models")
    api.load_image(cluster.name, images.berth())
    namespace = f"soak-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", namespace)
    eventually(lambda: cluster.get("serviceaccount", "default", namespace), 30, "the default ServiceAccount")
    grant(cluster, namespace)
    put_weights(cluster, namespace, folder)
    flags = ("--image", f"llamacpp={images.LLAMA_IMAGE}", "--provisioner-image", images.BERTH_IMAGE)
    operator = OperatorProcess(cluster, namespace, folder, *flags, "--log-format", "json")
    try:
        target = Served(cluster, namespace, operator.start())
        say = lambda line: click.echo(line, err=True)  # noqa: E731
        running = Soak(target, "soaked", seed=seed, kill_share=kills, say=say)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(running, "enough", True))
        return running.run(cycles)
    except AssertionError:
        click.echo(operator.log.read_text()[-4000:], err=True)
        raise
    finally:
        operator.stop()
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


if __name__ == "__main__":
    main(prog_name="hack/soak")
