"""Downloads are asked how far they are; nothing that one of them answers, or does not, troubles the others."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from berth.controllers.progress_polling import ProgressPoller
from berth.controllers.store import Key, Store
from berth.planning.names import PROGRESS_PORT
from support import builders
from support.builders import CACHE, NAMESPACE

KEY = Key("ModelCache", NAMESPACE, CACHE)
PLACE = (NAMESPACE, "d")
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Polling:
    """A store with a cache, a poller on it, and downloads on loopback addresses of their own."""

    def __init__(self) -> None:
        self.store = Store()
        self.store.observe(builders.model_cache())
        self.woken: list[Key] = []
        self.poller = ProgressPoller(self.store, self.woken.append, interval=0.02, timeout=0.3, at_once=4)

    @property
    def told(self) -> dict[str, Any]:
        """By name of a Pod: what its download said."""
        return {name: dict(one) for (_, name), one in self.store.memories.progress.items()}

    @asynccontextmanager
    async def download(self, answer: Answer, name: str = "d") -> AsyncIterator[None]:
        """A Pod whose download answers in some way."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.readuntil(b"\r\n\r\n"):
                    await answer(writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        address = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"
        server = await asyncio.start_server(serve, address, PROGRESS_PORT)
        self.store.observe(builders.download_pod(name, running_for=5, address=address))
        async with server:
            yield

    async def until(self, condition: Callable[[], bool]) -> None:
        """Poll until something is so."""
        async with asyncio.timeout(10):
            task = asyncio.create_task(self.poller.run())
            try:
                while not condition():
                    await asyncio.sleep(0.005)
                    assert not task.done(), task.result()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def polling() -> Polling:
    return Polling()


def says(document: Any, status: str = "200 OK") -> Answer:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode()

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head + content)
        await writer.drain()

    return answer


async def drips(writer: asyncio.StreamWriter) -> None:
    """Always a little more, and never an end: no single read takes long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def floods(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n{" + b" " * 10_000_000)
    await writer.drain()


async def test_what_a_download_says_reaches_its_cache(polling: Polling) -> None:
    async with polling.download(says(builders.progress(40))):
        await polling.until(lambda: bool(polling.woken))
    assert polling.told["d"]["percent"] == 40
    assert polling.woken == [KEY]
    assert polling.store.gather(KEY).progress["d"]["percent"] == 40


async def test_the_same_answer_wakes_nobody_again(polling: Polling) -> None:
    asked = []

    async def answer(writer: asyncio.StreamWriter) -> None:
        asked.append(1)
        await says(builders.progress(40))(writer)

    async with polling.download(answer):
        await polling.until(lambda: len(asked) > 4)
    assert polling.woken == [KEY]


@pytest.mark.parametrize(
    "answer",
    [says(b"<html>"), says([1, 2]), says({}, "404 Not Found"), says(b"\xff\xfe"), floods, drips],
    ids=["page", "list", "absent", "bytes", "flood", "drip"],
)
async def test_whoever_does_not_answer_holds_nobody_up(polling: Polling, answer: Answer) -> None:
    rounds: list[int] = []

    async def good(writer: asyncio.StreamWriter) -> None:
        rounds.append(1)
        await says(builders.progress(40))(writer)

    async with polling.download(answer, "bad"), polling.download(good, "good"):
        await polling.until(lambda: len(rounds) > 2)
    assert set(polling.told) == {"good"}


async def test_only_what_makes_sense_is_believed(polling: Polling) -> None:
    nonsense = builders.progress(percent=40, bytesDone="many", revision=["abc"], figures={"format": "none"}, more=1)
    async with polling.download(says(nonsense)):
        await polling.until(lambda: "d" in polling.told)
    assert polling.told["d"] == {
        "uri": builders.URI,
        "bytesTotal": 10 * builders.GIB,
        "percent": 40,
        "filesTotal": 3,
        "filesDone": 1,
        "bytesPerSecond": builders.GIB,
        "etaSeconds": 5,
    }


async def test_a_redirect_is_not_followed(polling: Polling) -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\n{}"

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()

    async with polling.download(answer, "bad"), polling.download(says(builders.progress()), "good"):
        await polling.until(lambda: "good" in polling.told)
    assert "bad" not in polling.told


async def test_a_download_that_is_not_there_yet_is_asked_again(polling: Polling) -> None:
    polling.store.observe(builders.download_pod("away", running_for=5, address="127.9.9.9"))
    async with polling.download(says(builders.progress()), "here"):
        await polling.until(lambda: "here" in polling.told)
    assert list(polling.told) == ["here"]


async def test_what_ended_is_forgotten(polling: Polling) -> None:
    async with polling.download(says(builders.progress())):
        await polling.until(lambda: "d" in polling.told)
        polling.store.observe(builders.download_pod(said=builders.said(), version=2))
        await polling.until(lambda: not polling.told)


async def test_pods_without_address_or_download_are_not_asked(polling: Polling) -> None:
    polling.store.observe(builders.download_pod("waits", waiting="ContainerCreating", address="127.9.9.9"))
    polling.store.observe(builders.download_pod("nowhere", running_for=1))
    polling.store.observe(builders.serving_pod("server"))
    assert polling.store.downloading_pods() == []
