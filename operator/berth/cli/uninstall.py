"""The command `berth uninstall`."""

import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--timeout",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds to wait until all Models are stopped; more than the longest shutdown.drainTimeout.",
)
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Default: in-cluster.")
@click.option(
    "--namespace",
    default="berth-system",
    show_default=True,
    envvar="POD_NAMESPACE",
    help="Namespace of the operator and its ConfigMap.",
)
@click.option("--config-map", default="berth-operator", show_default=True, help="As the operator's flag of this name.")
@click.option("--served-namespace", help="Wait for the Models of this namespace only. Default: all.")
@click.option("--undo", is_flag=True, help="Take the wish back: Models start again. Waits for nothing.")
def uninstall(
    timeout: float,
    kubeconfig: Path | None,
    namespace: str,
    config_map: str,
    served_namespace: str | None,
    undo: bool,
) -> None:
    """Stop all Models before the operator is removed."""
    import asyncio

    from berth.cli.stopping import StopFailedError, Wish, stop_all, take_back
    from berth.cluster.connection import ConnectError
    from berth.cluster.errors import ApiError

    wish = Wish(namespace, config_map)
    try:
        asyncio.run(take_back(kubeconfig, wish) if undo else stop_all(kubeconfig, wish, served_namespace, timeout))
    except StopFailedError as error:
        sys.exit(f"berth: {error}")
    except (ApiError, ConnectError) as error:
        sys.exit(f"berth: the Kubernetes API cannot be used: {error}")
