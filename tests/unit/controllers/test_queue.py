"""The queue: nothing is lost, nothing is worked on twice at once, and errors wait longer each time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.controllers.queue import WorkQueue
from unit.cluster import virtual_time


def run(scene: Coroutine[Any, Any, Any]) -> Any:
    """Hours pass in milliseconds."""
    return virtual_time.run(scene)


async def nothing_within(queue: WorkQueue[str], seconds: float) -> bool:
    """Whether no key comes for so long."""
    try:
        await asyncio.wait_for(queue.get(), seconds)
    except TimeoutError:
        return True
    return False


def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    async def scene() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in "abc":
            queue.add(key)
        assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]

    run(scene())


def test_a_key_that_waits_is_not_added_again() -> None:
    async def scene() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.add("a")
        assert len(queue) == 1
        queue.done(await queue.get())
        assert queue.idle

    run(scene())


def test_a_key_that_is_worked_on_comes_again_only_when_that_is_done() -> None:
    async def scene() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        key = await queue.get()
        queue.add("a")
        assert await nothing_within(queue, 100)
        queue.done(key)
        assert await queue.get() == "a"

    run(scene())


def test_many_calls_during_the_work_are_one() -> None:
    async def scene() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        key = await queue.get()
        for _ in range(5):
            queue.add("a")
        queue.done(key)
        queue.done(await queue.get())
        assert queue.idle

    run(scene())


def test_a_worker_that_waits_gets_the_key_that_arrives() -> None:
    async def scene() -> None:
        queue: WorkQueue[str] = WorkQueue()
        waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        for key in "abc":
            queue.add(key)
        assert sorted(await asyncio.gather(*waiting)) == ["a", "b", "c"]

    run(scene())


def test_a_worker_that_was_cancelled_while_waiting_takes_no_key_with_it() -> None:
    async def scene() -> None:
        queue: WorkQueue[str] = WorkQueue()
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add("a")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await asyncio.wait_for(queue.get(), 1) == "a"

    run(scene())


def test_a_key_comes_after_its_time() -> None:
    async def scene() -> float:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 30)
        await queue.get()
        return asyncio.get_running_loop().time()

    assert run(scene()) == pytest.approx(30)


@pytest.mark.parametrize(("first", "second"), [(10, 30), (30, 10)])
def test_the_earlier_of_two_times_counts(first: float, second: float) -> None:
    async def scene() -> float:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", first)
        queue.add_after("a", second)
        queue.done(await queue.get())
        now = asyncio.get_running_loop().time()
        assert await nothing_within(queue, 100)
        return now

    assert run(scene()) == pytest.approx(10)


def test_a_failed_key_waits_longer_each_time_up_to_the_ceiling() -> None:
    async def scene() -> list[float]:
        queue: WorkQueue[str] = WorkQueue(base=1, ceiling=60)
        queue.add("a")
        delays = []
        for _ in range(10):
            delays.append(queue.failed(await queue.get()))
        return delays

    for delay, expected in zip(run(scene()), [1, 2, 4, 8, 16, 32, 60, 60, 60, 60], strict=True):
        assert 0.75 * expected <= delay <= 1.25 * expected


def test_success_ends_the_back_off() -> None:
    async def scene() -> float:
        queue: WorkQueue[str] = WorkQueue(base=1)
        queue.add("a")
        for _ in range(5):
            queue.failed(await queue.get())
        queue.done(await queue.get())
        queue.add("a")
        return queue.failed(await queue.get())

    assert run(scene()) < 1.5


def test_news_of_a_failed_key_does_not_wait_for_the_back_off() -> None:
    async def scene() -> float:
        queue: WorkQueue[str] = WorkQueue(base=60)
        queue.add("a")
        queue.failed(await queue.get())
        queue.add("a")
        await queue.get()
        return asyncio.get_running_loop().time()

    assert run(scene()) == 0


def test_a_back_off_holds_nobody_else_up() -> None:
    async def scene() -> str:
        queue: WorkQueue[str] = WorkQueue(base=60)
        queue.add("a")
        queue.add("b")
        queue.failed(await queue.get())
        return await queue.get()

    assert run(scene()) == "b"


def test_a_forgotten_key_does_not_come_back_by_time() -> None:
    async def scene() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 30)
        queue.forget("a")
        assert await nothing_within(queue, 1000)

    run(scene())


steps = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["add", "later"]),
        st.floats(0, 20, allow_nan=False),
    ),
    max_size=25,
)


@given(steps, st.lists(st.tuples(st.floats(0, 9), st.booleans()), min_size=1, max_size=8), st.integers(1, 4))
def test_every_wish_is_followed_by_work_that_began_after_it(
    wishes: list[tuple[str, str, float]], works: list[tuple[float, bool]], workers: int
) -> None:
    """However long the work takes and however often it fails, with one worker or several."""

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue(base=0.5, ceiling=8)
        busy: set[str] = set()
        begun: dict[str, float] = {}
        endless = iter(works * 1000)

        async def work() -> None:
            while True:
                key = await queue.get()
                assert key not in busy, "two at once"
                busy.add(key)
                begun[key] = loop.time()
                seconds, fails = next(endless)
                await asyncio.sleep(seconds)
                busy.remove(key)
                _ = queue.failed(key) if fails else queue.done(key)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        wished: dict[str, float] = {}
        for key, what, seconds in wishes:
            if what == "add":
                queue.add(key)
                wished[key] = max(wished.get(key, 0), loop.time())
            else:
                queue.add_after(key, seconds)
            await asyncio.sleep(seconds / 4)
        await asyncio.sleep(1000)
        for key, when in wished.items():
            assert begun[key] >= when, "lost"
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [end for end in ends if not isinstance(end, asyncio.CancelledError)] == []

    run(scene())


@given(steps)
def test_once_all_is_done_the_queue_is_empty(wishes: list[tuple[str, str, float]]) -> None:
    async def scene() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key, what, seconds in wishes:
            _ = queue.add(key) if what == "add" else queue.add_after(key, seconds)
        while not await nothing_within_and_done(queue):
            pass
        assert (len(queue), queue.idle) == (0, True)

    async def nothing_within_and_done(queue: WorkQueue[str]) -> bool:
        try:
            queue.done(await asyncio.wait_for(queue.get(), 100))
        except TimeoutError:
            return True
        return False

    run(scene())
