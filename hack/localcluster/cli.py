"""hack/cluster: the commands."""

import json
import time
from pathlib import Path
from typing import Any

import click

from localcluster import api, binaries, images
from localcluster.errors import ClusterError

name_option = click.option(
    "--name", default="berth", show_default=True, help="Which cluster; several can be up at once."
)


class Commands(click.Group):
    """Commands whose errors are shown as sentences."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except ClusterError as error:
            click.echo(f"hack/cluster: {error}", err=True)
            ctx.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run a local Kubernetes, also where there is no container engine.

    With a container engine and kind, the cluster is one of kind. Otherwise Kubernetes is built from its Go
    modules, once, and runs as plain processes in namespaces of their own (Linux, root). Clusters that were
    not made here are only used when named by --kubeconfig.
    """


@main.command()
@name_option
@click.option("--control-plane", is_flag=True, help="Only etcd, API server, controller manager and scheduler.")
@click.option("--audit", is_flag=True, help="Write an audit log at level Metadata.")
@click.option("--gpus", type=click.IntRange(0, 64), default=None, help="GPUs of the real node.  [default: 4]")
@click.option("--kubeconfig", type=click.Path(exists=True, path_type=Path), help="Use this existing cluster.")
def up(name: str, control_plane: bool, audit: bool, gpus: int | None, kubeconfig: Path | None) -> None:
    """Make a cluster, or finish or repair one; returns when it can be used."""
    began = time.monotonic()
    cluster = api.ensure(
        name, control_plane=control_plane or None, audit=audit or None, gpus=gpus, kubeconfig=kubeconfig
    )
    click.echo(f"cluster {name} is up after {time.monotonic() - began:.1f} s", err=True)
    click.echo(f"export KUBECONFIG={cluster.kubeconfig}")


@main.command()
@name_option
def down(name: str) -> None:
    """Remove a cluster and everything of it."""
    click.echo(f"cluster {name} is gone" if api.delete(name) else f"there is no cluster {name}", err=True)


@main.command()
@name_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def status(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show what a cluster is made of. Exits with 0 if all of it runs, with 3 otherwise."""
    try:
        found: dict[str, Any] = api.status(name)
    except ClusterError as error:
        click.echo(json.dumps({"name": name, "alive": False}) if as_json else str(error))
        ctx.exit(3)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        _show(found)
    ctx.exit(0 if found["alive"] else 3)


def _show(found: dict[str, Any]) -> None:
    click.echo(f"cluster {found['name']} ({found['kind']}): {'up' if found['alive'] else 'not up'}")
    if found["components"]:
        click.echo(f"\n{'COMPONENT':<26}{'PID':>8}  {'ALIVE':<6}{'MEMORY':>9}")
    for c in found["components"]:
        alive = "yes" if c["alive"] else "NO"
        click.echo(
            f"{c['name']:<26}{c['pid'] or '-':>8}  {alive:<6}{c['memory'] / 2**20:>6.0f} MB  {c['note']}".rstrip()
        )
    if found["components"]:
        click.echo(f"{'together':<42}{sum(c['memory'] for c in found['components']) / 2**20:>6.0f} MB\n")
    shown = {"kubeconfig": found["kubeconfig"], "API server": found.get("server")}
    for label, value in {
        **shown,
        **found.get("addresses", {}),
        "logs": found["logs"],
        "audit log": found.get("audit_log"),
    }.items():
        if value:
            click.echo(f"{label:<16}{value}")


@main.command()
@name_option
@click.option("--print", "content", is_flag=True, help="The content instead of the path.")
def kubeconfig(name: str, content: bool) -> None:
    """Print the path of the administrator's kubeconfig."""
    where, found = api.find(name)
    path = Path(found.kubeconfig) if found.kubeconfig else where.kubeconfig
    if not path.exists():
        raise ClusterError(f"the cluster {name} was not started completely; hack/cluster up --name {name} finishes it")
    click.echo(path.read_text() if content else str(path), nl=not content)


@main.command("load-image")
@name_option
@click.argument("archives", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load_image(name: str, archives: tuple[Path, ...]) -> None:
    """Import images from archives as `docker save` writes them."""
    for archive in archives:
        references = images.configs(archive)
        api.load_image(name, archive)
        click.echo("\n".join(references))


@main.command("add-nodes")
@name_option
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option("--gpus", type=click.IntRange(0, 64), default=8, show_default=True, help="GPUs of each node.")
@click.option("--product", default="NVIDIA-H100-80GB-HBM3", show_default=True, help="Label nvidia.com/gpu.product.")
@click.option("--memory", type=int, default=81559, show_default=True, help="Memory of each GPU in MiB.")
@click.option("--pod-cidr", default="", help="Where addresses of their Pods come from.")
def add_nodes(name: str, count: int, gpus: int, product: str, memory: int, pod_cidr: str) -> None:
    """Add simulated nodes: Pods on them say that they run, and nothing does."""
    for node in api.add_nodes(name, count, gpus, product, memory, pod_cidr):
        click.echo(node)


@main.command()
def build() -> None:
    """Build the programs into the user's cache, and nothing else."""
    for path in binaries.ensure().values():
        click.echo(path)


@main.group()
def image() -> None:
    """Berth's own image; `hack/image` is short for this."""


@image.command("build")
def build_image() -> None:
    """Build it from this checkout, unless that was done before, and print its name and its archive."""
    began = time.monotonic()
    archive = images.berth()
    click.echo(f"{images.BERTH_IMAGE} is there after {time.monotonic() - began:.1f} s", err=True)
    click.echo(f"{images.BERTH_IMAGE} {archive}")
