"""Elections over a real Lease: through a proxy that can cut one of two off."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from berth.cluster.connection import connect
from berth.cluster.election import Election, Settings
from berth.cluster.gateway import Gateway
from berth.cluster.resources import LEASES
from berth.cluster.transport import Limits
from support.fault_proxy import FaultProxy
from support.kube import Cluster

pytestmark = pytest.mark.control_plane

SETTINGS = Settings(lease_duration=3.0, renew_deadline=1.5, retry_period=0.2, request_timeout=0.5)


class Taker:
    """One that takes part, over a proxy of its own."""

    def __init__(self, proxy: FaultProxy, gateway: Gateway, namespace: str, name: str) -> None:
        self.proxy = proxy
        self.lost_at: float | None = None
        self.election = Election(
            gateway, namespace, "berth", name, SETTINGS, on_lost=lambda: setattr(self, "lost_at", time.monotonic())
        )


@pytest.fixture
async def taker(control_plane: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Callable[[str], Any]]:
    async with AsyncExitStack() as stack:

        async def make(name: str) -> Taker:
            (tmp_path / name).mkdir()
            proxy = await stack.enter_async_context(FaultProxy(control_plane.kubeconfig, tmp_path / name))
            client = await connect(proxy.kubeconfig)
            stack.push_async_callback(client.close)
            gateway = Gateway(client, limits=Limits(write_timeout=1.0))
            return Taker(proxy, gateway, namespace, name)

        yield make


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 — the conditions are all over the place
            await asyncio.sleep(0.01)


async def test_the_lease_is_as_kubernetes_writes_them(taker: Any, control_plane: Cluster, namespace: str) -> None:
    one = await taker("one")
    async with one.election:
        await one.election.acquired()
        lease = control_plane.get("lease", "berth", namespace)
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == "one"
        assert (lease["spec"]["leaseDurationSeconds"], lease["spec"]["leaseTransitions"]) == (3, 0)
        now = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
        before = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() - 60))
        assert lease["spec"]["renewTime"][:16] in (now, before)
        assert lease["spec"]["acquireTime"].endswith("Z")
    released = control_plane.get("lease", "berth", namespace)
    assert released is not None
    assert not released["spec"].get("holderIdentity")


async def test_one_of_two_leads(taker: Any) -> None:
    one, two = await taker("one"), await taker("two")
    async with one.election, two.election:
        await until(lambda: one.election.is_leader or two.election.is_leader)
        for _ in range(5):
            done = len(one.proxy.requests), len(two.proxy.requests)
            await until(lambda done=done: len(one.proxy.requests) > done[0] and len(two.proxy.requests) > done[1])
            assert one.election.is_leader != two.election.is_leader
    assert (one.lost_at, two.lost_at) == (None, None)


async def test_who_leaves_hands_over_within_three_seconds(taker: Any) -> None:
    one, two = await taker("one"), await taker("two")
    async with AsyncExitStack() as waiting:
        async with one.election:
            await one.election.acquired()
            await waiting.enter_async_context(two.election)
            await until(lambda: len(two.proxy.requests) > 3)
            assert (one.election.is_leader, two.election.is_leader) == (True, False)
        left = time.monotonic()
        await two.election.acquired()
        assert time.monotonic() - left < 1  # the Lease lasts 3 s
    assert (one.lost_at, two.lost_at) == (None, None)


async def test_who_is_cut_off_stops_before_the_other_begins(taker: Any, control_plane: Cluster, namespace: str) -> None:
    one, two = await taker("one"), await taker("two")
    async with one.election:
        await one.election.acquired()
        async with two.election:
            last_renewal = time.monotonic()
            with one.proxy.hold():
                await until(lambda: not one.election.is_leader)
                stopped = time.monotonic()
                assert not two.election.is_leader
                await until(lambda: one.lost_at is not None)
                await two.election.acquired()
            assert one.lost_at is not None
            assert stopped - last_renewal < SETTINGS.renew_deadline + 0.5
            assert one.lost_at - stopped < 0.5
            assert time.monotonic() - stopped > 0.5
            lease = control_plane.get("lease", "berth", namespace)
            assert lease is not None
            assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("two", 1)


async def test_answers_that_get_lost_do_not_end_leading(taker: Any) -> None:
    """The write arrived, its answer did not: the Lease has our name and a resourceVersion we do not know."""
    one = await taker("one")
    async with one.election:
        await one.election.acquired()
        with one.proxy.cut(method="PATCH", times=2, after=True) as fault:
            await until(lambda: fault.hits == 2)
        done = len(one.proxy.requests)
        await until(lambda: len(one.proxy.requests) > done + 8)
        assert one.election.is_leader
        assert one.lost_at is None


async def test_a_stale_leader_ends_when_another_took_the_lease(
    taker: Any, control_plane: Cluster, namespace: str
) -> None:
    one = await taker("one")
    async with one.election:
        await one.election.acquired()
        patch = '{"spec":{"holderIdentity":"usurper"}}'
        control_plane.kubectl("-n", namespace, "patch", "lease", "berth", "--type=merge", "-p", patch)
        await until(lambda: one.lost_at is not None)
        assert not one.election.is_leader
    lease = control_plane.get("lease", "berth", namespace)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "usurper"


async def test_a_deleted_lease_ends_leading(taker: Any, control_plane: Cluster, namespace: str) -> None:
    one = await taker("one")
    async with one.election:
        await one.election.acquired()
        control_plane.kubectl("-n", namespace, "delete", "lease", "berth")
        await until(lambda: one.lost_at is not None)


async def test_who_may_not_is_waiting(
    control_plane: Cluster, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the right to the Lease nobody leads, and the log says why, once."""
    client = await connect(control_plane.token_kubeconfig(namespace, "default", tmp_path / "account"))
    gateway = Gateway(client, limits=Limits(write_timeout=1.0))
    async with Election(gateway, namespace, "berth", "one", SETTINGS) as election:
        await until(lambda: "forbidden" in caplog.text)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await election.acquired()
        assert not election.is_leader
    assert caplog.text.count("cannot be kept") == 1
    await client.close()


def test_the_path_of_leases() -> None:
    assert LEASES.path("n", "berth") == "/apis/coordination.k8s.io/v1/namespaces/n/leases/berth"


LEADER = """
import asyncio, sys
from pathlib import Path
from berth.cluster.connection import connect
from berth.cluster.election import Election, Settings
from berth.cluster.gateway import Gateway
from berth.cluster.transport import Limits

async def main(kubeconfig, namespace):
    gateway = Gateway(await connect(Path(kubeconfig)), limits=Limits(write_timeout=1.0))
    async with Election(gateway, namespace, "berth", "stale", Settings(3.0, 1.5, 0.2, 0.5)) as election:
        await election.acquired()
        print("leads", flush=True)
        try:
            await asyncio.sleep(60)
        finally:
            print("cleans up", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_the_process_of_a_stale_leader_ends_without_another_word(control_plane: Cluster, namespace: str) -> None:
    arguments = ("-c", LEADER, str(control_plane.kubeconfig), namespace)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"leads\n"
        patch = '{"spec":{"holderIdentity":"usurper"}}'
        control_plane.kubectl("-n", namespace, "patch", "lease", "berth", "--type=merge", "-p", patch)
        assert await process.wait() == 1
        assert await process.stdout.read() == b""
