"""Has the operator stop all Models, and waits until no server is left.

A chart does it in a hook before it removes the operator. Nothing but a wish is written, into the operator's ConfigMap:
the operator closes Services and drains servers as for any other stop.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import click

from berth.cluster import resources
from berth.cluster.connection import connect
from berth.cluster.errors import AlreadyExistsError, NotFoundError, UnavailableError
from berth.cluster.gateway import Gateway
from berth.planning.uninstalling import SWITCH_KEY, Remaining, remaining

_PAUSE = 1.0
_SHARE = 5
"""Models are listed again after so many times the seconds that it took: it may be a long list."""


class StopFailedError(Exception):
    """Servers are left. The message names their Models, and the ways out."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Where the operator looks for it."""

    namespace: str
    config_map: str

    def __str__(self) -> str:
        return f"ConfigMap {self.namespace}/{self.config_map}"


async def stop_all(kubeconfig: Path | None, wish: Wish, served_namespace: str | None, patience: float) -> None:
    """Stop all Models, in one namespace or in all. Raises StopFailedError after so many seconds, ApiError."""
    async with _gateway(kubeconfig) as gateway:
        await _write(gateway, wish, stop=True)
        click.echo(f"{wish}: all Models are to stop")
        left = await _wait(gateway, served_namespace, patience)
    if left is None:
        raise StopFailedError(f"Models could not be listed for {patience:.0f} s")
    if left.left:
        raise StopFailedError(
            f"not stopped after {patience:.0f} s: {', '.join(left.left)}. Is the operator running? "
            "Try again with a longer --timeout, or have Models start again with --undo"
        )


async def take_back(kubeconfig: Path | None, wish: Wish) -> None:
    """Have Models start again. Raises ApiError."""
    async with _gateway(kubeconfig) as gateway:
        await _write(gateway, wish, stop=False)
        click.echo(f"{wish}: Models run again as they say")


@contextlib.asynccontextmanager
async def _gateway(kubeconfig: Path | None) -> AsyncIterator[Gateway]:
    client = await connect(kubeconfig)
    try:
        yield Gateway(client, field_manager="berth-uninstall")
    finally:
        await client.close()


async def _write(gateway: Gateway, wish: Wish, *, stop: bool) -> None:
    data = {"data": {SWITCH_KEY: "true" if stop else "false"}}
    try:
        await gateway.merge_patch(resources.CONFIG_MAPS, wish.namespace, wish.config_map, data)
        return
    except NotFoundError as error:
        if error.namespace_is_missing:
            raise
    metadata = {"name": wish.config_map, "namespace": wish.namespace}
    try:
        await gateway.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **data}, repeatable=True)
    except AlreadyExistsError:
        await gateway.merge_patch(resources.CONFIG_MAPS, wish.namespace, wish.config_map, data)


async def _wait(gateway: Gateway, namespace: str | None, patience: float) -> Remaining | None:
    """A line for each change until nothing is left; what is left when the time is up, None when nobody can say."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience
    seen: Remaining | None = None
    while True:
        began = clock()
        try:
            now = await _look(gateway, namespace)
        except UnavailableError as error:
            click.echo(f"Models cannot be listed for now: {error}", err=True)
        else:
            if str(now) != str(seen):
                click.echo(str(now))
            seen = now
            if not now.left:
                return now
        pause = max(_PAUSE, _SHARE * (clock() - began))
        if clock() + pause > deadline:
            return seen
        await asyncio.sleep(pause)


async def _look(gateway: Gateway, namespace: str | None) -> Remaining:
    try:
        models, _ = await gateway.list(resources.MODELS, namespace=namespace)
    except NotFoundError:
        models = []  # the kind itself is gone, and all Models with it
    return remaining(models)
