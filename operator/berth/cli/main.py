"""The `berth` command: each part of Berth that runs as a process is a subcommand.

A subcommand imports what it needs when it runs: a download does not wait for the Kubernetes client.
"""

import sys
from pathlib import Path
from typing import Any

import click

from berth import __version__
from berth.cli.logs import configure_logging
from berth.cli.operate import operator
from berth.cli.uninstall import uninstall


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="berth")
def main() -> None:
    """Model lifecycle manager for Kubernetes."""


@main.command()
@click.option("--node", envvar="NODE_NAME", required=True, help="Name of the Node that this runs on.  [$NODE_NAME]")
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Default: in-cluster.")
@click.option(
    "--library",
    type=click.Path(path_type=Path),
    envvar="BERTH_NVML_LIBRARY",
    help="Path of libnvidia-ml.so.1 where the loader does not find it.",
)
@click.option(
    "--pod-resources",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/kubelet/pod-resources/kubelet.sock"),
    show_default=True,
    help="Socket on which kubelet says which Pod holds which GPU.",
)
@click.option(
    "--proc", type=click.Path(path_type=Path), default=Path("/proc"), show_default=True, help="The node's /proc."
)
@click.option(
    "--pod-logs",
    type=click.Path(path_type=Path),
    default=Path("/var/log/pods"),
    show_default=True,
    help="kubelet's folders of logs, whose names tell the Pods of processes.",
)
@click.option(
    "--host",
    default="0.0.0.0",  # noqa: S104 - probes and scrapers reach a Pod from outside
    show_default=True,
    help="Address of /healthz and /metrics.",
)
@click.option("--port", default=8080, show_default=True, help="Port of /healthz and /metrics; 0 takes a free one.")
@click.option(
    "--interval", default=2.0, show_default=True, type=click.FloatRange(min=0.05), help="Seconds between looks."
)
@click.option("--log-format", default="json", show_default=True, type=click.Choice(["json", "text"]))
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
def agent(log_format: str, log_level: str, **settings: Any) -> None:
    """Report the GPUs of this node: memory, health, holders, processes."""
    import asyncio

    from berth.agent.driver import DriverExchangedError
    from berth.agent.program import Agent, AgentSettings
    from berth.cluster.connection import ConnectError

    configure_logging(log_format, log_level)
    try:
        asyncio.run(Agent(AgentSettings(**settings)).run())
    except (ConnectError, DriverExchangedError) as error:
        sys.exit(f"berth: {error}")


@main.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def provision(arguments: tuple[str, ...]) -> None:
    """Bring the files of a model onto a volume, or remove them."""
    from berth.provision.__main__ import main as run

    sys.exit(run(arguments))


@main.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def discover(arguments: tuple[str, ...]) -> None:
    """List the models that are on a volume already."""
    from berth.provision.discovery.__main__ import main as run

    sys.exit(run(arguments))


@main.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def drain(arguments: tuple[str, ...]) -> None:
    """Hold a server's SIGTERM back until its requests are done."""
    from berth.drain.__main__ import main as run

    sys.exit(run(arguments))


main.add_command(operator)
main.add_command(uninstall)
