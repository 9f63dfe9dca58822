"""The command line of `hack/bench`."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks import capacity, download, reconcile, start


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure Berth."""


@main.command("reconcile")
@click.option(
    "--models", default=1000, show_default=True, type=click.IntRange(1, 20000), help="Models applied at once."
)
@click.option(
    "--singles",
    default=50,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Models applied one by one afterwards.",
)
@click.option(
    "--quiet", default=120.0, show_default=True, type=click.FloatRange(min=5), help="Seconds of quiet to measure."
)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file.")
def reconcile_command(models: int, singles: int, quiet: float, file: Path | None) -> None:
    """Models at once and one by one, and what a quiet cluster costs, beside a bare loop of the same writes."""
    _tell(asyncio.run(reconcile.run(models, singles, quiet)), file)


@main.command("download")
@click.option(
    "--size-mib", default=1024, show_default=True, type=click.IntRange(1, 65536), help="Size of each of the files."
)
@click.option(
    "--repetitions",
    default=3,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Runs of each; medians count.",
)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file.")
def download_command(size_mib: int, repetitions: int, file: Path | None) -> None:
    """Four files from a hub on loopback, beside curl and sha256sum; memory; and what a kill costs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends like Ctrl-C does: what was written is removed
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have it ignored by what they start beside them
    _tell(download.run(size_mib, repetitions), file)


@main.command("capacity")
@click.option("--models", default=10000, show_default=True, type=click.IntRange(1, 100000), help="Models planned for.")
@click.option("--nodes", default=1000, show_default=True, type=click.IntRange(1, 10000), help="Nodes of 8 GPUs.")
@click.option(
    "--repetitions",
    default=5,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Plans of each kind; medians count.",
)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file.")
def capacity_command(models: int, nodes: int, repetitions: int, file: Path | None) -> None:
    """Who may load where, in a full cluster: planned from scratch and after one change."""
    _tell(capacity.run(models, nodes, repetitions), file)


@main.command("start")
@click.option("--models", default=4, show_default=True, type=click.IntRange(1, 4), help="Models applied at once.")
@click.option(
    "--repetitions", default=3, show_default=True, type=click.IntRange(1, 100), help="Runs of each; medians count."
)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file.")
def start_command(models: int, repetitions: int, file: Path | None) -> None:
    """Real servers on the local node, from apply to Ready, beside the same servers made by hand."""
    _tell(asyncio.run(start.run(models, repetitions)), file)


def _tell(figures: dict[str, Any], file: Path | None) -> None:
    text = json.dumps(figures, indent=2)
    if file is not None:
        file.write_text(text + "\n")
    click.echo(text)


if __name__ == "__main__":
    main()
