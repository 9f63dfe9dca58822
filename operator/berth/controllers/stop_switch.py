"""Reads whether Berth is about to be uninstalled, and all Models are to stop: one key of one ConfigMap."""

import asyncio
import logging
from collections.abc import Callable

from berth.cluster import resources
from berth.cluster.errors import ApiError, ForbiddenError, NotFoundError
from berth.cluster.gateway import Gateway
from berth.controllers.store import Key, Store
from berth.planning.uninstalling import asks_to_stop

logger = logging.getLogger(__name__)
_INTERVAL = 3.0


class StopSwitch:
    """Keeps the store's knowledge of the operator's ConfigMap fresh.

    It asks for that one object now and then instead of watching: a right to `get` one name is all that this needs.
    """

    def __init__(
        self, gateway: Gateway, namespace: str, name: str, store: Store, enqueue: Callable[[Key], None]
    ) -> None:
        self._gateway, self._namespace, self._name = gateway, namespace, name
        self._store, self._enqueue = store, enqueue
        self._silent = False
        self._missing_since: float | None = None

    async def read(self) -> None:
        """Look once. Raises ApiError when nobody answers: then what was known holds."""
        try:
            found = await self._gateway.get(resources.CONFIG_MAPS, self._namespace, self._name)
            self._missing_since = None
        except NotFoundError:
            found = None
        except ForbiddenError as error:
            if not self._silent:
                logger.warning("an uninstallation would not be noticed: %s", error)
            self._silent = True
            found = None  # as when it is missing: what uninstalls Berth takes its rights as well
        asked = asks_to_stop(found, self._missing_for() if found is None else 0.0)
        keys = self._store.uninstall(asked)
        if keys:
            said = {True: "all Models stop", False: "Models run as they say", None: "it is gone, and nothing starts"}
            logger.info("ConfigMap %s/%s: %s", self._namespace, self._name, said[asked])
        for key in keys:
            self._enqueue(key)

    def _missing_for(self) -> float:
        """Seconds since it was missing for the first time."""
        now = asyncio.get_running_loop().time()
        if self._missing_since is None:
            self._missing_since = now
        return now - self._missing_since

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await self.read()
            except ApiError as error:
                logger.warning("ConfigMap %s/%s was not read: %s", self._namespace, self._name, error)
            except Exception:
                logger.exception("ConfigMap %s/%s was not read", self._namespace, self._name)
