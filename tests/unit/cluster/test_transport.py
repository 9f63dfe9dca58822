"""What is sent again and what is not, against a server that answers as told."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from berth.cluster import errors
from berth.cluster.connection import ConnectError, Login, connect, credentials_for_kopf
from berth.cluster.gateway import Gateway
from berth.cluster.resources import CONFIG_MAPS
from berth.cluster.transport import Limits
from berth.cluster.waiting import Backoff

QUICK = Limits(read_timeout=2.0, write_timeout=1.0, deadline=5.0, backoff=Backoff(first=0.001, longest=0.01))
OBJECT = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "n", "name": "a"}}

Act = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(status: int, body: dict[str, Any] | None = None, **headers: str) -> Act:
    async def act(request: web.Request) -> web.StreamResponse:
        return web.json_response(OBJECT if body is None else body, status=status, headers=headers)

    return act


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


class Server:
    """Answers with `script`, in order; the last one for ever."""

    def __init__(self) -> None:
        self.script: list[Act] = [answer(200)]
        self.requests: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        await request.read()
        act = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await act(request)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    served = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", served.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"  # type: ignore[attr-defined]
    yield served
    await runner.cleanup()


@pytest.fixture
def kubeconfig(server: Server, tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    return write_kubeconfig(tmp_path, server.url, {"tokenFile": str(tmp_path / "token")})  # type: ignore[attr-defined]


def write_kubeconfig(folder: Path, url: str, user: dict[str, str]) -> Path:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
async def gateway(kubeconfig: Path) -> AsyncIterator[Gateway]:
    client = await connect(kubeconfig)
    seen: list[tuple[str, str, int]] = []
    gateway = Gateway(client, limits=QUICK, on_request=lambda verb, what, status, _: seen.append((verb, what, status)))
    gateway.seen = seen  # type: ignore[attr-defined]
    yield gateway
    await client.close()


async def read(gateway: Gateway) -> Any:
    return await gateway.get(CONFIG_MAPS, "n", "a")


async def apply(gateway: Gateway) -> Any:
    return await gateway.apply(OBJECT, force=True)


async def create(gateway: Gateway) -> Any:
    return await gateway.create(OBJECT)


async def create_again(gateway: Gateway) -> Any:
    return await gateway.create(OBJECT, repeatable=True)


@pytest.mark.parametrize("failure", [answer(503), answer(500), answer(504), hang_up], ids=["503", "500", "504", "cut"])
@pytest.mark.parametrize("call", [read, apply, create_again], ids=["get", "apply", "repeatable create"])
async def test_what_may_happen_twice_is_sent_again(server: Server, gateway: Gateway, failure: Act, call: Any) -> None:
    server.script = [failure, failure, answer(200)]
    assert (await call(gateway))["metadata"]["name"] == "a"
    assert len(server.requests) == 3


@pytest.mark.parametrize("failure", [answer(503), answer(500), hang_up, never], ids=["503", "500", "cut", "silence"])
async def test_a_create_is_not(server: Server, gateway: Gateway, failure: Act) -> None:
    server.script = [failure]
    with pytest.raises(errors.UnavailableError):
        await create(gateway)
    assert len(server.requests) == 1


async def test_a_create_that_was_turned_away_is_sent_again(server: Server, gateway: Gateway) -> None:
    server.script = [answer(429, **{"Retry-After": "0.01"}), answer(201)]
    await create(gateway)
    assert len(server.requests) == 2


async def test_silence_ends_with_the_timeout_and_is_tried_again(server: Server, gateway: Gateway) -> None:
    server.script = [never, answer(200)]
    await apply(gateway)
    assert [request.query["timeout"] for request in server.requests] == ["1s", "1s"]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
async def test_refusals_are_not_sent_again(server: Server, gateway: Gateway, status: int) -> None:
    server.script = [answer(status)]
    with pytest.raises(errors.ApiError) as caught:
        await apply(gateway)
    assert caught.value.status == status
    assert len(server.requests) == 1


async def test_the_deadline_ends_it(server: Server, kubeconfig: Path) -> None:
    client = await connect(kubeconfig)
    gateway = Gateway(client, limits=Limits(deadline=0.05, backoff=Backoff(first=0.01, longest=0.02)))
    server.script = [answer(503)]
    with pytest.raises(errors.UnavailableError) as caught:
        await read(gateway)
    assert caught.value.status == 503
    assert 2 <= len(server.requests) < 20
    await client.close()


async def test_a_wait_beyond_the_deadline_is_left_to_the_caller(server: Server, gateway: Gateway) -> None:
    server.script = [answer(429, **{"Retry-After": "60"})]
    with pytest.raises(errors.UnavailableError) as caught:
        await read(gateway)
    assert caught.value.retry_after == 60
    assert len(server.requests) == 1


async def test_no_server_is_unavailable(tmp_path: Path) -> None:
    client = await connect(write_kubeconfig(tmp_path, "http://127.0.0.1:9", {}))
    gateway = Gateway(client, limits=Limits(deadline=0.0))
    with pytest.raises(errors.UnavailableError, match="get /api/v1/namespaces/n/configmaps/a"):
        await read(gateway)
    await client.close()


async def test_each_attempt_is_counted(server: Server, gateway: Gateway) -> None:
    server.script = [hang_up, answer(503), answer(200)]
    await apply(gateway)
    assert gateway.seen == [("apply", "configmaps", status) for status in (0, 503, 200)]  # type: ignore[attr-defined]


async def test_nothing_is_written_behind_the_fence(server: Server, gateway: Gateway) -> None:
    gateway.fence = lambda: False
    with pytest.raises(errors.FencedError):
        await apply(gateway)
    with pytest.raises(errors.FencedError):
        await gateway.delete(CONFIG_MAPS, "n", "a", uid="1", resource_version=None)
    assert server.requests == []
    await read(gateway)
    await gateway.apart().apply(OBJECT, force=True)
    assert len(server.requests) == 2


async def test_retries_are_fenced_too(server: Server, gateway: Gateway) -> None:
    leading = iter([True, False])
    gateway.fence = lambda: next(leading)
    server.script = [answer(503)]
    with pytest.raises(errors.FencedError):
        await apply(gateway)
    assert len(server.requests) == 1


async def test_a_refused_token_is_read_again_once(server: Server, gateway: Gateway, tmp_path: Path) -> None:
    async def check(request: web.Request) -> web.StreamResponse:
        return await answer(200 if request.headers["Authorization"] == "Bearer second" else 401)(request)

    server.script = [check]
    with pytest.raises(errors.UnauthorizedError):
        await read(gateway)
    assert len(server.requests) == 2
    (tmp_path / "token").write_text("second\n")
    await read(gateway)


async def test_tokens_are_in_no_message(server: Server, gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for act in (answer(401), answer(500, {"kind": "Status", "message": "x"}), hang_up):
        server.script = [act]
        with pytest.raises(errors.ApiError) as caught:
            await create(gateway)
        chain: BaseException | None = caught.value
        while chain is not None:
            assert "first" not in f"{chain!s} {chain!r}"
            chain = chain.__cause__ or chain.__context__
    assert "first" not in caplog.text


async def test_at_most_so_many_requests_at_once(server: Server, kubeconfig: Path) -> None:
    under_way, most = 0, 0

    async def slowly(request: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return await answer(200)(request)

    server.script = [slowly]
    client = await connect(kubeconfig)
    gateway = Gateway(client, concurrency=3)
    await asyncio.gather(*(read(gateway) for _ in range(20)))
    assert most == 3
    await client.close()


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>"])
async def test_an_answer_that_is_no_object_is_unavailable(server: Server, gateway: Gateway, body: bytes) -> None:
    async def act(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    server.script = [act]
    with pytest.raises(errors.UnavailableError, match="no object"):
        await read(gateway)


async def test_pages_that_expire_are_read_anew(server: Server, gateway: Gateway) -> None:
    first = {"metadata": {"resourceVersion": "5", "continue": "c"}, "items": [{"metadata": {"name": "a"}}]}
    last = {"metadata": {"resourceVersion": "6"}, "items": [{"metadata": {"name": "b"}}]}
    server.script = [answer(200, first), answer(410), answer(200, first), answer(410), answer(200, last)]
    items, version = await gateway.list(CONFIG_MAPS, page_size=1, from_cache=True)
    assert ([item["metadata"]["name"] for item in items], version) == (["b"], "6")
    queries = [dict(request.query) for request in server.requests]
    assert queries[:2] == [{"resourceVersion": "0", "limit": "1"}, {"limit": "1", "continue": "c"}]
    assert queries[4] == {"resourceVersion": "0"}


async def test_kopf_gets_the_same_login(server: Server, kubeconfig: Path, tmp_path: Path) -> None:
    client = await connect(kubeconfig)
    (tmp_path / "token").write_text("second\n")
    info = await credentials_for_kopf(client)
    assert info.server == server.url  # type: ignore[attr-defined]
    assert info.as_http_headers() == {"Authorization": "Bearer second"}
    assert info.trust_env is False
    await client.close()


async def test_a_source_that_cannot_be_read_leaves_the_old_token() -> None:
    async def fail() -> None:
        raise OSError("gone")

    login = Login(fail, period=0.0)
    await login(None)


@pytest.mark.parametrize(
    "text", ["", "{}", "apiVersion: v1\n", "{", "clusters: []\ncontexts: []\ncurrent-context: x\n"]
)
async def test_a_bad_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(ConnectError, match="broken"):
        await connect(path)
    with pytest.raises(ConnectError, match="missing"):
        await connect(tmp_path / "missing")


async def test_a_pod_uses_its_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes.aio.config import incluster_config

    from berth.cluster import connection

    for name, text in (("token", "pod-token\n"), ("ca.crt", "not read before the first request")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(connection, "_SERVICE_ACCOUNT_TOKEN", tmp_path / "token")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(
        connection, "ApiClient", lambda configuration: type("C", (), {"configuration": configuration})()
    )
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    client = await connect()
    assert client.configuration.host == "https://10.0.0.1:443"
    assert await connection.authorization(client) == "bearer pod-token"
    (tmp_path / "token").write_text("rotated\n")
    info = await credentials_for_kopf(client)
    assert info.as_http_headers() == {"Authorization": "Bearer rotated"}
    assert json.dumps(info.server) == '"https://10.0.0.1:443"'
