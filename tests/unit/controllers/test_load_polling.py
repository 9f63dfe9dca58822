"""Servers are asked for their load; nothing that one of them answers, or does not, troubles the others."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from berth.api.model_status import LoadState
from berth.controllers.load_polling import LoadPoller
from berth.controllers.metrics import Metrics
from berth.controllers.store import Key, Store
from berth.planning import names
from berth.planning.load_state import Load
from support import builders
from support.builders import NAMESPACE
from support.misbehaving_server import Fault, MisbehavingServer, Resource

VLLM = {"backend": "vllm", "source": {"uri": "pvc://c/p"}, "gpus": {"count": 0}}
REST = b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:request_success_total 0\n"
WORK = b"vllm:num_requests_running 2\nvllm:num_requests_waiting 1\nvllm:request_success_total 0\n"


class Polling:
    """A store, a poller on it, and servers on loopback addresses of their own."""

    def __init__(self, interval: float = 0.05) -> None:
        self.store = Store()
        self.metrics = Metrics(self.store)
        self.woken: list[Key] = []
        self.poller = LoadPoller(
            self.store,
            self.woken.append,
            self.metrics,
            lambda: datetime.now(UTC),
            interval=interval,
            settle=0.2,
            timeout=0.3,
            at_once=4,
        )

    def load(self, model: str) -> Load | None:
        return self.store.memories.loads.get(Key("Model", NAMESPACE, model))

    def state(self, model: str) -> LoadState | None:
        load = self.load(model)
        return load.state if load else None

    def number(self, name: str, model: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"berth_model_requests_{name}", {"namespace": NAMESPACE, "model": model}
        )

    def serve(self, server: MisbehavingServer, model: str, content: bytes = REST, **answer: Any) -> Resource:
        """A Model with one server, which answers as it is told to."""
        uid = f"uid-{model}"
        self.store.observe(builders.model(model, uid=uid, spec=VLLM))
        self.store.observe(
            builders.serving_pod(f"p-{model}", model=model, address=server_address(server), port=server.port)
        )
        return server.put("/metrics", content, **answer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.task = asyncio.create_task(self.poller.run())
        try:
            yield
        finally:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)
                assert not self.task.done(), self.task.result()


def server_address(server: MisbehavingServer) -> str:
    return server.url.split("/")[2].rsplit(":", 1)[0]


def loopback() -> MisbehavingServer:
    host = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"
    return MisbehavingServer(host=host)


@pytest.fixture
def polling() -> Polling:
    return Polling()


async def test_a_model_becomes_busy_at_once_and_idle_after_a_while(polling: Polling) -> None:
    with loopback() as server:
        page = polling.serve(server, "m")
        async with polling.running():
            await polling.until(lambda: polling.state("m") is LoadState.IDLE)
            page.content = WORK
            await polling.until(lambda: polling.state("m") is LoadState.BUSY)
            assert (polling.number("running", "m"), polling.number("waiting", "m")) == (2, 1)
            page.content = REST
            await polling.until(lambda: polling.state("m") is LoadState.IDLE)
            assert polling.number("running", "m") == 0
    assert len(polling.woken) == 3


async def test_looks_that_show_nothing_new_wake_nobody(polling: Polling) -> None:
    with loopback() as server:
        page = polling.serve(server, "m", WORK)
        async with polling.running():
            await polling.until(lambda: len(server.requests("/metrics")) > 3)
            page.content = WORK.replace(b"2", b"3")
            await polling.until(lambda: polling.number("running", "m") == 3)
    assert polling.woken == [Key("Model", NAMESPACE, "m")]


async def test_the_sidecar_is_asked_where_there_is_one(polling: Polling) -> None:
    polling.store.observe(builders.model(spec={"backend": "llamacpp", "source": {"uri": "pvc://c/a.gguf"}}))
    address = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.1"
    sidecar = builders.container(names.DRAIN_CONTAINER, running_for=50, started=True)
    polling.store.observe(builders.serving_pod(address=address, port=8080, init=(sidecar,)))
    body = b'{"running": 1, "waiting": 0, "worked": 3}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"GET /load ")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, address, names.DRAIN_PORT), polling.running():
        await polling.until(lambda: polling.state("m") is LoadState.BUSY)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(hang_after=0),
        Fault(hang_after=10),
        Fault(status=500),
        Fault(status=401),
        Fault(cut_after=5),
        Fault(redirect="http://127.0.0.1:1/"),
        Fault(body=b"<html>", status=200),
        Fault(without_length=True, body=b" " * 5_000_000, status=200),
    ],
    ids=["hang", "hang in the middle", "error", "key", "cut", "redirect", "page", "flood"],
)
async def test_whoever_does_not_tell_is_unknown_and_holds_nobody_up(polling: Polling, fault: Fault) -> None:
    with loopback() as bad, loopback() as good:
        polling.serve(bad, "bad", always=fault)
        polling.serve(good, "good")
        async with polling.running():
            await polling.until(lambda: len(good.requests("/metrics")) > 5 and polling.load("bad"))
            assert polling.state("good") is LoadState.IDLE
            assert polling.state("bad") is LoadState.UNKNOWN
            assert polling.number("running", "bad") is None


async def test_a_server_that_hangs_is_asked_ever_more_rarely_and_as_usual_once_it_answers(polling: Polling) -> None:
    with loopback() as bad, loopback() as good:
        page = polling.serve(bad, "bad", always=Fault(hang_after=0))
        polling.serve(good, "good")
        async with polling.running():
            await polling.until(lambda: len(good.requests("/metrics")) > 40)
            assert len(bad.requests("/metrics")) <= 5
            page.always = None
            await polling.until(lambda: polling.state("bad") is LoadState.IDLE)
            before = len(bad.requests("/metrics"))
            await polling.until(lambda: len(bad.requests("/metrics")) > before + 5)


async def test_a_server_that_falls_silent_becomes_unknown_and_its_numbers_vanish(polling: Polling) -> None:
    with loopback() as server:
        page = polling.serve(server, "m", WORK)
        async with polling.running():
            await polling.until(lambda: polling.number("running", "m") == 2)
            page.always = Fault(status=500)
            await polling.until(lambda: polling.state("m") is LoadState.UNKNOWN)
            assert polling.number("running", "m") is None


async def test_models_that_are_gone_or_have_no_server_are_forgotten(polling: Polling) -> None:
    with loopback() as server:
        polling.serve(server, "gone")
        polling.serve(server, "stopped")
        async with polling.running():
            await polling.until(lambda: polling.load("gone") and polling.load("stopped"))
            polling.store.forget("Model", NAMESPACE, "gone", "uid-gone")
            polling.store.forget("Pod", NAMESPACE, "p-stopped", "pod-p-stopped")
            await polling.until(lambda: not polling.store.memories.loads)
            await polling.until(lambda: polling.number("running", "gone") is None)
            assert polling.number("running", "stopped") is None


async def test_what_a_namesake_told_is_not_that_of_the_model() -> None:
    polling = Polling(interval=60)  # one look
    with loopback() as server:
        polling.serve(server, "m", WORK, rate=1000)
        async with polling.running():
            await polling.until(lambda: server.seen)
            polling.store.observe(builders.model("m", uid="another", version=2, spec=VLLM))
            await polling.until(lambda: not polling.poller._under_way)  # the look that was under way has ended
    assert polling.load("m") is None


async def test_servers_that_cannot_tell_are_not_asked(polling: Polling) -> None:
    with loopback() as server:
        polling.serve(server, "m")
        polling.store.observe(builders.model("m", uid="uid-m", version=2, generation=2, spec=builders.spec()))
        polling.serve(server, "other")
        async with polling.running():
            await polling.until(lambda: polling.load("other"))
        assert polling.load("m") is None
        assert polling.woken == [Key("Model", NAMESPACE, "other")]


async def test_a_spec_that_is_not_valid_troubles_nobody(polling: Polling) -> None:
    with loopback() as server:
        polling.serve(server, "m")
        polling.store.observe(builders.model("m", uid="uid-m", version=2, generation=2, spec={"backend": "abacus"}))
        polling.serve(server, "other")
        async with polling.running():
            await polling.until(lambda: polling.load("other"))
        assert polling.load("m") is None
