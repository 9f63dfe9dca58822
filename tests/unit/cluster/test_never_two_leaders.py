"""Never two leaders: the decision by itself, and the whole election under clocks, losses and crashes."""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.cluster import errors
from berth.cluster.election import Election
from berth.cluster.resources import ResourceType
from berth.cluster.standing import Create, Lease, Renew, Settings, Standing, Take, Wait, decide
from berth.cluster.transport import Limits
from unit.cluster import virtual_time

SETTINGS = Settings()
TIGHT = Settings(renew_deadline=12.2, request_timeout=2.7)
"""As close as the clocks of the simulation allow, which run between 0.9 and 1.1: 12.2 / 0.9 < 15 / 1.1."""
seconds = st.floats(0, 1e6, allow_nan=False)


def lease(holder: str = "other", version: str = "1", duration: float = 15.0) -> Lease:
    return Lease(version, holder, duration, 0)


def test_a_missing_lease_is_created() -> None:
    assert decide(None, "me", 0, 0, SETTINGS) == Create()


def test_our_lease_is_renewed_however_old_it_is() -> None:
    assert decide(lease("me"), "me", 0, 1e9, SETTINGS) == Renew(lease("me"))


def test_a_lease_given_back_is_taken_at_once() -> None:
    assert decide(lease(""), "me", 100, 100, SETTINGS) == Take(lease(""))


@given(observed_at=seconds, passed=seconds, duration=st.floats(0, 100))
def test_anothers_lease_is_taken_only_after_its_time_by_our_clock(
    observed_at: float, passed: float, duration: float
) -> None:
    now = observed_at + passed
    until = observed_at + max(duration, SETTINGS.lease_duration)
    held = lease(duration=duration)
    assert decide(held, "me", observed_at, now, SETTINGS) == (Take(held) if now >= until else Wait(until))


@given(sent_at=seconds, answer_after=st.floats(0, 3), seen_after=st.floats(0, 100), later=st.floats(0, 100))
def test_who_waits_begins_after_the_leader_stopped(
    sent_at: float, answer_after: float, seen_after: float, later: float
) -> None:
    """The same instant seen by both: the leader knows when it sent its renewal, the other when it saw it."""
    leader, other = Standing("leader", SETTINGS), Standing("other", SETTINGS)
    leader.held(lease("leader"), sent_at, sent_at + answer_after)
    other.observed(lease("leader"), sent_at + seen_after)
    now = sent_at + seen_after + later
    assert not (leader.leads(now) and isinstance(other.decide(now), Take))


def test_looking_again_does_not_put_the_takeover_off() -> None:
    waiting = Standing("me", SETTINGS)
    for at in range(0, 16, 2):
        waiting.observed(lease(), float(at))
    assert isinstance(waiting.decide(15.0), Take)


def test_a_renewal_that_is_seen_does() -> None:
    waiting = Standing("me", SETTINGS)
    waiting.observed(lease(version="1"), 0.0)
    waiting.observed(lease(version="2"), 14.0)
    assert waiting.decide(15.0) == Wait(29.0)


def test_leading_ends_by_itself_and_counts_from_when_the_renewal_was_sent() -> None:
    leader = Standing("me", SETTINGS)
    assert (leader.leads(0.0), leader.lost(0.0)) == (False, False)
    leader.held(lease("me"), sent_at=100.0, at=103.0)
    assert leader.leads(109.9)
    assert not leader.leads(110.0)
    assert leader.lost(110.0)


@pytest.mark.parametrize("found", [None, lease("other", "9")])
def test_another_name_in_the_lease_ends_leading_at_once(found: Lease | None) -> None:
    leader = Standing("me", SETTINGS)
    leader.held(lease("me"), sent_at=100.0, at=100.0)
    leader.observed(found, 101.0)
    assert leader.lost(101.0)


@pytest.mark.parametrize(
    "numbers",
    [
        {"renew_deadline": 15.0},
        {"retry_period": 10.0},
        {"retry_period": 0.0},
        {"request_timeout": 5.0},
        {"request_timeout": 0.0},
    ],
)
def test_settings_that_could_give_two_leaders_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"retry_period|request_timeout"):
        Settings(**numbers)


def test_a_gateway_whose_writes_outlive_the_lease_is_refused() -> None:
    world = World(random.Random(0))
    with pytest.raises(ValueError, match="write_timeout"):
        Election(FakeGateway(world, Limits(write_timeout=5.0)), "n", "l", "me")  # type: ignore[arg-type]


class World:
    """One Lease in an API server, the network to it, and everybody who ever took part."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.trouble = True
        self.version = 0
        self.spec: dict[str, Any] | None = None
        self.members: list[Member] = []
        self.terms = 0
        self.violations: list[str] = []

    def object(self) -> dict[str, Any]:
        assert self.spec is not None
        return {"metadata": {"resourceVersion": str(self.version)}, "spec": dict(self.spec)}

    def store(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.spec = {**(self.spec or {}), **spec}
        self.check()
        return self.object()

    def check(self) -> None:
        """Whether two lead is looked at after every change; raising here would only be one more lost request."""
        leading = [member.name for member in self.members if member.leads]
        if len(leading) > 1:
            self.violations.append(f"{leading} lead together at {asyncio.get_running_loop().time():.1f}")


@dataclass(frozen=True)
class Weather:
    """Latencies in seconds, each way; the share of messages that are lost, each way."""

    latencies: tuple[float, ...]
    loss: float


GOOD = Weather((0.001, 0.01), 0)
LOSSY = Weather((0.01, 0.5), 0.4)
SLOW = Weather((0.5, 1.4, 2.9, 10.0), 0.05)
CUT = Weather((0.01,), 1)


class FakeGateway:
    """The three requests of an election, over a network that delays, loses, and delivers after the client gave up."""

    def __init__(self, world: World, limits: Limits | None = None) -> None:
        self.world = world
        self.limits = limits or Limits()
        self._weather, self._until = GOOD, 0.0

    @property
    def weather(self) -> "Weather":
        """What the network of this process is like at the moment: good for a while, then bad for a while."""
        now = asyncio.get_running_loop().time()
        if not self.world.trouble:
            return GOOD
        if now >= self._until:
            self._weather = self.world.chance.choice([GOOD] * 6 + [LOSSY, SLOW, CUT])
            self._until = now + self.world.chance.uniform(1, 30)
        return self._weather

    def apart(self, **limits: float) -> "FakeGateway":
        return FakeGateway(self.world, Limits(write_timeout=limits["write_timeout"]))

    async def get(self, resource: ResourceType, namespace: str, name: str) -> dict[str, Any]:
        return await self._over_the_network(self._get)

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return await self._over_the_network(self._create, manifest)

    async def merge_patch(
        self, resource: ResourceType, namespace: str, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        return await self._over_the_network(self._patch, body)

    def _get(self) -> dict[str, Any]:
        if self.world.spec is None:
            raise errors.NotFoundError("no lease", status=404)
        return self.world.object()

    def _create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        if self.world.spec is not None:
            raise errors.AlreadyExistsError("exists", status=409)
        return self.world.store(manifest["spec"])

    def _patch(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if self.world.spec is None:
            raise errors.NotFoundError("no lease", status=404)
        if body["metadata"]["resourceVersion"] != str(self.world.version):
            raise errors.ResourceVersionConflictError("outdated", status=409)
        return self.world.store(body["spec"])

    async def _over_the_network(self, call: Any, *arguments: Any) -> dict[str, Any]:
        weather, chance = self.weather, self.world.chance

        async def deliver() -> dict[str, Any]:  # goes on when the client has given up
            await asyncio.sleep(chance.choice(weather.latencies))
            if chance.random() < weather.loss:
                raise errors.UnavailableError("lost on the way there")
            answer = call(*arguments)
            await asyncio.sleep(chance.choice(weather.latencies))
            if chance.random() < weather.loss:
                raise errors.UnavailableError("lost on the way back")
            return answer  # type: ignore[no-any-return]

        delivery = asyncio.ensure_future(deliver())
        delivery.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout(self.limits.write_timeout):
                return await asyncio.shield(delivery)
        except TimeoutError as error:
            raise errors.UnavailableError("no answer in time") from error


class Member:
    """A process with a clock of its own that takes part, leads when it may, and ends in one way or another."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        loop = asyncio.get_running_loop()
        start, speed = world.chance.uniform(0, 1e6), world.chance.choice([0.9, 1.0, 1.1])
        self.gone = asyncio.Event()
        self.election = Election(
            FakeGateway(world, Limits(write_timeout=2.5)),  # type: ignore[arg-type]
            "n",
            "lease",
            name,
            TIGHT,
            on_lost=self.gone.set,
            clock=lambda: start + speed * loop.time(),
        )
        world.members.append(self)

    @property
    def leads(self) -> bool:
        return self.alive and self.election.is_leader

    async def live(self) -> None:
        chance = self.world.chance
        try:
            async with self.election:
                acquired = asyncio.ensure_future(self.election.acquired())
                with suppress(TimeoutError):
                    async with asyncio.timeout(chance.choice([60.0, 600.0]) if self.world.trouble else None):
                        await acquired
                        self.world.terms += 1
                        self.world.check()
                        await self.gone.wait()
                if self.world.trouble and chance.random() < 0.5:  # kill -9: the Lease is not given back
                    self.alive = False
                    assert self.election._task is not None
                    self.election._closing = True
                    self.election._task.cancel()
                    self.election._release = _nothing  # type: ignore[method-assign]
        finally:
            self.alive = False


async def _nothing() -> None:
    return


async def _a_hard_life(seed: int) -> World:
    """Ten minutes with three processes that come and go, then peace."""
    world = World(random.Random(seed))
    loop = asyncio.get_running_loop()
    number = 0

    async def place() -> None:
        nonlocal number
        while True:
            number += 1
            await Member(world, f"m{number}").live()
            await asyncio.sleep(world.chance.uniform(0, 5))

    places = [asyncio.create_task(place()) for _ in range(3)]
    while loop.time() < 700:
        world.trouble = loop.time() < 600
        await asyncio.sleep(0.25)
        world.check()
        assert not world.violations
        assert not any(task.done() for task in places), "the test itself broke"
    assert any(member.leads for member in world.members), "nobody leads after 100 s of peace"
    for task in places:
        task.cancel()
    await asyncio.gather(*places, return_exceptions=True)
    return world


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_never_two_leaders_whatever_happens_and_one_once_it_is_over(seed: int) -> None:
    world = virtual_time.run(_a_hard_life(seed))
    assert world.terms > 0


async def _two(world: World) -> tuple[Election, Election]:
    loop = asyncio.get_running_loop()
    first, second = (
        Election(FakeGateway(world), "n", "lease", name, SETTINGS, clock=loop.time, on_lost=lambda: None)  # type: ignore[arg-type]
        for name in ("first", "second")
    )
    return first, second


def test_the_lease_given_back_is_taken_within_three_seconds() -> None:
    async def story() -> float:
        world = World(random.Random(1))
        world.trouble = False
        first, second = await _two(world)
        async with first:
            await first.acquired()
            await second.__aenter__()
            await asyncio.sleep(60)
            assert (first.is_leader, second.is_leader) == (True, False)
        assert not first.is_leader
        ended = asyncio.get_running_loop().time()
        await second.acquired()
        await second.__aexit__()
        return asyncio.get_running_loop().time() - ended

    assert virtual_time.run(story()) < 3


def test_a_steady_leader_costs_one_request_per_period_and_no_transitions() -> None:
    async def story() -> World:
        world = World(random.Random(1))
        world.trouble = False
        first, _ = await _two(world)
        async with first:
            await asyncio.sleep(3600)
        return world

    world = virtual_time.run(story())
    assert world.spec is not None
    assert (world.spec["leaseTransitions"], world.spec["holderIdentity"]) == (0, "")
    assert 1700 < world.version < 2400


def test_a_dead_leader_is_replaced_once_its_lease_is_over() -> None:
    async def story() -> float:
        world = World(random.Random(1))
        world.trouble = False
        world.spec, world.version = {"holderIdentity": "dead", "leaseDurationSeconds": 15, "leaseTransitions": 4}, 1
        first, _ = await _two(world)
        async with first:
            await first.acquired()
            assert world.spec["leaseTransitions"] == 5
            return asyncio.get_running_loop().time()

    assert 15 <= virtual_time.run(story()) < 15.5


def test_a_bug_in_the_loop_is_not_leading_either() -> None:
    """Whatever goes wrong in the loop, leading ends in time and is told."""

    async def story() -> list[float]:
        world = World(random.Random(1))
        world.trouble = False
        loop = asyncio.get_running_loop()
        lost: list[float] = []
        gateway = FakeGateway(world)
        election = Election(gateway, "n", "l", "me", clock=loop.time, on_lost=lambda: lost.append(loop.time()))  # type: ignore[arg-type]
        async with election:
            await election.acquired()
            world.object = lambda: {"spec": "nonsense"}  # type: ignore[assignment, method-assign, return-value]
            await asyncio.sleep(60)
            assert not election.is_leader
        return lost

    lost = virtual_time.run(story())
    assert len(lost) == 1
    assert lost[0] <= 10.1


@pytest.mark.parametrize("leading", [True, False])
def test_a_cancelled_loop_is_a_lost_lease(leading: bool) -> None:
    """Something else (kopf does, to tasks younger than itself) cancels the task of the election."""

    async def story() -> list[str]:
        world = World(random.Random(1))
        world.trouble = False
        if not leading:
            world.spec, world.version = {"holderIdentity": "another", "leaseDurationSeconds": 15}, 1
        lost: list[str] = []
        election = Election(FakeGateway(world), "n", "l", "me", on_lost=lambda: lost.append("lost"))  # type: ignore[arg-type]
        async with election:
            await asyncio.sleep(1)
            assert election._task is not None
            election._task.cancel()
            await asyncio.sleep(1)
        return lost

    assert virtual_time.run(story()) == ["lost"] * leading
