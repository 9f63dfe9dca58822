"""Requests: one client for all connections, with proxies, a private CA, and no token where it does not belong."""

import logging
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import certifi
import httpx2

from berth import __version__
from berth.provision.answers import Origin, refusal, shown_url
from berth.provision.errors import ProvisionError, Reason

_LONGEST_DETAIL = 2048
_LONGEST_LISTING = 64 * 1024 * 1024


def make_client(connections: int, timeout: float, ca_files: tuple[Path, ...] = ()) -> httpx2.Client:
    """A client that takes proxies from HTTPS_PROXY, HTTP_PROXY and NO_PROXY, and adds `ca_files` to the public CAs."""
    for name in ("httpx2", "httpcore2"):  # they would log whole URLs, signatures included
        logging.getLogger(name).setLevel(logging.WARNING)
    trusted = ssl.create_default_context(cafile=certifi.where())
    for file in ca_files:
        try:
            trusted.load_verify_locations(cafile=file)
        except (OSError, ssl.SSLError) as error:
            raise ProvisionError(Reason.CERTIFICATE_REFUSED, f"no certificate can be read from {file}") from error
    return httpx2.Client(
        verify=trusted,
        follow_redirects=True,
        max_redirects=10,
        timeout=httpx2.Timeout(timeout, connect=min(timeout, 15.0), pool=None),
        limits=httpx2.Limits(max_connections=connections + 1, max_keepalive_connections=connections + 1),
        headers={"User-Agent": f"berth/{__version__}", "Accept-Encoding": "identity"},
    )


@contextmanager
def ask(client: httpx2.Client, url: str, headers: Mapping[str, str], origin: Origin) -> Iterator[httpx2.Response]:
    """An accepted answer whose body has not been read. Raises ProvisionError for everything else.

    httpx2 takes Authorization away when a redirect leads to another host.
    """
    with _connection_errors(url), client.stream("GET", url, headers=dict(headers)) as response:
        if any(step.url.scheme == "https" for step in response.history) and response.url.scheme != "https":
            raise ProvisionError(
                Reason.INSECURE_REDIRECT,
                f"{shown_url(url)} leads to {shown_url(str(response.url))}, which is not encrypted",
            )
        detail = _start(response) if origin.signed and response.status_code >= 400 else ""
        refused = refusal(response.status_code, response.headers, origin, str(response.url), detail)
        if refused:
            raise refused
        yield response


def _start(response: httpx2.Response) -> str:
    """The start of a short body."""
    start = b""
    for chunk in response.iter_bytes():
        start += chunk
        if len(start) >= _LONGEST_DETAIL:
            break
    return start[:_LONGEST_DETAIL].decode("utf-8", "replace")


def read_listing(
    client: httpx2.Client, url: str, headers: Mapping[str, str], origin: Origin
) -> tuple[bytes, httpx2.Headers]:
    """The body of a small answer, such as a listing, and its headers."""
    with ask(client, url, headers, origin) as response:
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > _LONGEST_LISTING:
                raise ProvisionError(Reason.REQUEST_REFUSED, f"the listing of {origin.name} is too long")
        return bytes(content), response.headers


@contextmanager
def _connection_errors(url: str) -> Iterator[None]:
    where = shown_url(url)
    try:
        yield
    except httpx2.ProxyError as error:
        raise ProvisionError(Reason.CONNECTION_FAILED, f"the proxy does not let us reach {where}: {error}") from error
    except httpx2.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise ProvisionError(
                Reason.CERTIFICATE_REFUSED,
                f"the certificate of {where} is not trusted: name the file with your CA in --ca-file or SSL_CERT_FILE",
            ) from error
        raise ProvisionError(Reason.CONNECTION_FAILED, f"{where} cannot be reached: {error}") from error
    except httpx2.ReadTimeout as error:
        raise ProvisionError(Reason.STALLED, f"{where} sends nothing any more") from error
    except httpx2.TimeoutException as error:
        raise ProvisionError(Reason.CONNECTION_FAILED, f"{where} cannot be reached in time") from error
    except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
        raise ProvisionError(Reason.CONNECTION_CUT, f"{where} broke off: {error}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise ProvisionError(Reason.REQUEST_REFUSED, f"{where} cannot be asked: {type(error).__name__}") from error
