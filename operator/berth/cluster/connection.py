"""From a kubeconfig, or a Pod's own account, to a client that stays logged in; the same login for kopf.

The library loads and interprets both sources. It does not keep all of them fresh: a `tokenFile` of a
kubeconfig is read once, a plugin runs once. So they are loaded again here, at most once a minute, and at
once after a 401.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from berth import __version__

if TYPE_CHECKING:
    import kopf

logger = logging.getLogger(__name__)

DEFAULT_POOL_SIZE = 64
TOKEN_PERIOD = 60.0
"""Seconds that a token is used before its source is read again."""

# What the library raises for a file that is not what it expects.
_BAD_SOURCE = (config.ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError)

_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class ConnectError(Exception):
    """There is no usable kubeconfig or account. The message says what was tried."""


class Login:
    """Keeps the token of a Configuration fresh. The Configuration calls it before it hands out its token."""

    def __init__(self, reload: Callable[[], Awaitable[None]], period: float = TOKEN_PERIOD) -> None:
        self._reload = reload
        self._period = period
        self._fresh_until = time.monotonic() + period
        self._lock = asyncio.Lock()

    async def __call__(self, configuration: Configuration) -> None:
        """Load the credentials again when they are due."""
        if time.monotonic() < self._fresh_until:
            return
        async with self._lock:  # one plugin run for all the requests that wait for it
            if time.monotonic() < self._fresh_until:
                return
            try:
                await self._reload()
            except Exception as error:  # the old credentials may be good for a while
                logger.warning("The credentials for Kubernetes could not be read again: %s", error)
            self._fresh_until = time.monotonic() + self._period

    def __deepcopy__(self, memo: object) -> Login:
        """Copies of a Configuration share the login: a lock cannot be copied."""
        return self

    def expire(self) -> None:
        """Read the credentials again before the next request: the API server refused them."""
        self._fresh_until = 0.0


async def connect(
    kubeconfig: Path | None = None,
    context: str | None = None,
    *,
    pool_size: int = DEFAULT_POOL_SIZE,
    user_agent: str = f"berth/{__version__}",
) -> ApiClient:
    """A client for the cluster of `kubeconfig`, else of $KUBECONFIG, the Pod's own account, ~/.kube/config.

    `pool_size` is the number of connections. Close the client with `await client.close()`. Raises
    ConnectError.
    """
    configuration = Configuration(
        connection_pool_maxsize=pool_size,
        client_session_kwargs={"trust_env": False},  # the default reads the environment on every request
    )
    # Since Python 3.13 a certificate without an Authority Key Identifier is refused, and many clusters have such ones
    # (kubernetes-client/python issue 2394). Whether a trusted authority signed it is checked as always.
    configuration.disable_strict_ssl_verification = True
    try:
        configuration.refresh_api_key_hook = Login(await _load(configuration, kubeconfig, context))
        client = ApiClient(configuration=configuration)  # reads the certificates
    except _BAD_SOURCE as error:
        raise ConnectError(f"cannot log in to Kubernetes with {_source(kubeconfig)}: {error}") from error
    client.user_agent = user_agent
    return client


async def _load(
    configuration: Configuration, kubeconfig: Path | None, context: str | None
) -> Callable[[], Awaitable[None]]:
    """Fill `configuration` and return what fills it again."""
    if kubeconfig is None and not os.environ.get("KUBECONFIG") and _in_cluster():

        async def reload_account() -> None:
            config.load_incluster_config(client_configuration=configuration, try_refresh_token=False)

        await reload_account()
        return reload_account

    if kubeconfig is not None and not kubeconfig.is_file():  # noqa: ASYNC240 — once, at start
        raise ConnectError(f"the kubeconfig {kubeconfig} does not exist")
    loader = await config.load_kube_config(
        config_file=None if kubeconfig is None else str(kubeconfig),
        context=context,
        client_configuration=configuration,
        persist_config=False,
    )

    async def reload_kubeconfig() -> None:
        await loader.load_and_set(configuration)

    return reload_kubeconfig


def _in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and _SERVICE_ACCOUNT_TOKEN.is_file()


def _source(kubeconfig: Path | None) -> str:
    if kubeconfig is not None:
        return f"the kubeconfig {kubeconfig}"
    if os.environ.get("KUBECONFIG"):
        return f"the kubeconfig {os.environ['KUBECONFIG']} of $KUBECONFIG"
    if _in_cluster():
        return "the account of this Pod"
    return "~/.kube/config (this is no Pod, and $KUBECONFIG is not set)"


async def authorization(client: ApiClient) -> str | None:
    """The value of the Authorization header, refreshed when it is due; None with client certificates."""
    configuration = client.configuration
    header: str | None = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return header.strip() if header else None


def refuse_credentials(client: ApiClient) -> bool:
    """Have the credentials read again, after a 401. Returns whether there is anything to read."""
    login = client.configuration.refresh_api_key_hook
    if not isinstance(login, Login):
        return False
    login.expire()
    return True


async def credentials_for_kopf(client: ApiClient) -> kopf.ConnectionInfo:
    """The login of `client` in the form that kopf takes: return it from a handler of `@kopf.on.login`.

    kopf calls that handler again when the API server refuses its token, so the source is read anew on every
    call.
    """
    import kopf

    refuse_credentials(client)
    header = await authorization(client)
    scheme, _, token = (header or "").rpartition(" ")
    configuration = client.configuration

    class Connection(kopf.ConnectionInfo):
        """With the same certificates as our own client."""

        def as_ssl_context(self) -> ssl.SSLContext:
            """The context, without the strictness that many clusters do not bear."""
            context = super().as_ssl_context()
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            return context

    return Connection(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme.capitalize() or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
        trust_env=False,
    )
