"""`hack/generate`: write the generated files, or say which of them are stale."""

import sys
from pathlib import Path

import click

from generation.outputs import desired_files, stale_files

ROOT = Path(__file__).resolve().parents[2]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--check", is_flag=True, help="Write nothing; name each stale file and exit 1.")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=ROOT,
    help="Checkout to write to.  [default: this one]",
)
def main(check: bool, root: Path) -> None:
    """Write what follows from types and decisions in operator/berth/, from values and catalogue, and from rbac.yaml."""
    files = desired_files()
    stale = stale_files(root, files)
    for path, problem in stale.items():
        if check:
            click.echo(f"{path}: {problem}", err=True)
        elif path in files:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(files[path], encoding="utf-8")
            click.echo(f"wrote {path}")
        else:
            (root / path).unlink()
            click.echo(f"removed {path}")
    if check and stale:
        click.echo("run hack/generate and commit the result", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="hack/generate")
