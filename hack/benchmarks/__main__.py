"""The command line of `hack/bench`."""

import asyncio
import json
from pathlib import Path

import click

from benchmarks import reconcile


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
    figures = asyncio.run(reconcile.run(models, singles, quiet))
    text = json.dumps(figures, indent=2)
    if file is not None:
        file.write_text(text + "\n")
    click.echo(text)


if __name__ == "__main__":
    main()
