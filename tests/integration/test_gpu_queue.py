"""Many Models and few GPUs, on a real API server with its scheduler and controllers."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from support.gpu_fleet import Fleet, Pool
from support.kube import eventually
from support.models import settle
from support.watchman import Watchman

pytestmark = pytest.mark.control_plane
PoolOf = Callable[..., Pool]
Status = dict[str, Any]


def _exactly_these_are_ready(pool: Pool, names: Iterable[str], timeout: float = 120) -> dict[str, Status]:
    """The statuses, once these are Ready and all others are queued."""

    def settled() -> dict[str, Status]:
        statuses = pool.statuses()
        phases = {name: status.get("phase") for name, status in statuses.items()}
        assert {name for name, phase in phases.items() if phase == "Ready"} == set(names), phases
        assert set(phases.values()) <= {"Ready", "Queued"}, phases
        return statuses

    return eventually(settled, timeout, f"exactly {sorted(names)} are ready")


def _position(status: Status) -> str:
    place: str = status["queue"]["position"]
    return place


FIRST = ("x", "h1", "h2", "p1", "p2", "u0", "u1", "u2", "u3")


def _fifty(pool: Pool) -> list[dict[str, Any]]:
    """Nine that fill 24 GPUs exactly, and 41 that have to wait; those that wait come first."""
    idle = [(f"z{number:02}", 1, 10) for number in range(20)]
    rest = [(f"r{number:02}", 1 + number % 3, 100) for number in range(21)]
    large = [("u0", 1, 300), ("u1", 1, 300), ("u2", 1, 300), ("u3", 1, 300), ("p1", 2, 700), ("p2", 2, 700)]
    largest = [("h1", 4, 800), ("h2", 4, 800), ("x", 8, 900)]
    return [pool.model(name, gpus, priority=priority) for name, gpus, priority in (*idle, *rest, *large, *largest)]


def test_of_fifty_models_exactly_the_most_important_are_ready(fleet: Fleet, pool_of: PoolOf) -> None:
    pool = pool_of(nodes=3, gpus=8)
    with Watchman(pool):
        pool.apply(*_fifty(pool))
        statuses = _exactly_these_are_ready(pool, FIRST)
    assert len(statuses) == 50
    queued = {name: status["queue"] for name, status in statuses.items() if status["phase"] == "Queued"}

    def in_order() -> bool:
        statuses, made = pool.statuses(), pool.made_at()
        order = sorted(queued, key=lambda name: (name[0] == "z", made[name], name))
        wanted = {name: str(place) if place <= 10 else ">10" for place, name in enumerate(order, 1)}
        assert {name: _position(statuses[name]) for name in order} == wanted
        queues = [statuses[name]["queue"] for name in order]
        assert {queue["reason"] for queue in queues} <= {"WaitingForGPU", "Preempted"}
        assert all("needs 20000 MiB on" in queue["message"] for queue in queues)
        return True

    _restart(fleet)  # which writes at once what would be written every 30 s
    eventually(in_order, 45, "the positions as they are now")
    _another_operator_finds_nothing_to_do(fleet, pool)


def _restart(fleet: Fleet) -> None:
    fleet.operator.stop()
    fleet.operator = fleet.start()


def _another_operator_finds_nothing_to_do(fleet: Fleet, pool: Pool) -> None:
    settle(fleet.operator)
    before = pool.versions()
    _restart(fleet)
    assert settle(fleet.operator, quiet=3) == 0
    assert pool.versions() == before


def test_who_makes_way_is_the_one_that_costs_least_and_it_comes_back_by_itself(pool_of: PoolOf) -> None:
    pool = pool_of(nodes=3, gpus=2)
    one, two, three = pool.nodes
    pool.apply(
        *(pool.model(f"small-{number}", priority=10, node=one) for number in (1, 2)),
        pool.model("wide", 2, priority=20, node=two, by_hand=True),
        pool.model("wider", 2, priority=30, node=three),
    )
    victim = pool.pod("wide")
    pool.serve(victim)
    others = ("small-1", "small-2", "wider")
    _exactly_these_are_ready(pool, ("wide", *others))
    untouched = {name: pool.pod(name)["metadata"]["uid"] for name in others}
    pool.apply(pool.model("urgent", 2, priority=500))
    waiting = pool.wait("urgent", "Queued", "WaitingForRelease")
    assert f"{two} has room once" in waiting["queue"]["message"]
    # It is drained like any other that is stopped: with the time that its spec gives it, and nothing new is sent to it.
    leaving = eventually(lambda: _ending(pool.pods("wide")), 30, "the victim ends")
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == leaving["spec"]["terminationGracePeriodSeconds"] > 60
    assert pool.closed("wide")
    pool.wait("wide", "Draining", "Preempted")
    pool.stays_queued("urgent", 1)
    pool.drop_pod(leaving["metadata"]["name"])
    pool.wait("urgent", "Ready")
    made_way = pool.wait("wide", "Queued", "Preempted")["queue"]
    assert f"made way for {pool.name}/urgent" in made_way["message"]
    assert "Preempted" in pool.events("wide")
    assert {name: pool.pod(name)["metadata"]["uid"] for name in others} == untouched
    pool.delete("urgent")
    back = pool.pod("wide")
    assert back["metadata"]["uid"] != victim["metadata"]["uid"]
    pool.serve(back)
    assert "queue" not in pool.wait("wide", "Ready")


def _ending(pods: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((pod for pod in pods if "deletionTimestamp" in pod["metadata"]), None)


def test_an_operator_that_is_killed_in_the_middle_leaves_no_trace(fleet: Fleet, pool_of: PoolOf) -> None:
    pool = pool_of(nodes=2, gpus=4)
    successor = fleet.start(wait_until_leading=False)
    low = [pool.model(f"low-{number}", priority=10) for number in range(8)]
    high = [pool.model(f"high-{number}", 1 + number % 2, priority=500) for number in range(6)]
    with Watchman(pool):
        pool.apply(*low)
        eventually(lambda: len(pool.phases().get("Ready", ())) >= 5, 60, "some are ready")
        pool.apply(*high)
        # In the middle of it: some make way, some load, some wait.
        eventually(lambda: pool.phases().get("Ready", set()) & {"high-0", "high-1", "high-2"}, 60, "the first one")
        fleet.operator.kill()
        eventually(lambda: successor.metric("berth_leading") == 1.0, 60, "the other leads")
        fleet.operator = successor
        # A preemption of which only a part was carried out is tried again after a minute.
        eventually(lambda: _five_of_six(pool), 150, "five of six are ready")
        settle(successor)


def _five_of_six(pool: Pool) -> bool:
    """Five of them have 7 of 8 GPUs. The last one with two is first in the queue: it holds the eighth."""
    statuses = pool.statuses()
    assert {status["phase"] for status in statuses.values()} <= {"Ready", "Queued"}
    ready = {name for name, status in statuses.items() if status["phase"] == "Ready"}
    assert {name for name in ready if name.startswith("high")} == {f"high-{number}" for number in range(5)}, ready
    return len(ready) <= 6


def test_a_model_that_is_deleted_in_the_queue_leaves_nothing_and_others_move_up(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=1)
    pool.apply(pool.model("a", priority=500))
    pool.wait("a", "Ready")
    pool.apply(pool.model("b", priority=300))
    assert _position(pool.wait("b", "Queued", "WaitingForGPU")) == "1"
    pool.apply(pool.model("c"))
    assert _position(pool.wait("c", "Queued")) == "2"
    pool.delete("b")
    eventually(lambda: not pool.objects("b"), 30, "nothing of b")
    pool.delete("a")
    pool.wait("c", "Ready")


def test_one_server_loads_on_a_node_at_a_time(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=2)
    pool.apply(pool.model("first", priority=500, by_hand=True))
    loading = pool.pod("first")
    pool.apply(pool.model("second", by_hand=True))
    waiting = pool.wait("second", "Queued", "WaitingForLoadSlot")["queue"]
    assert "as many servers are loading there as may load at once: 1" in waiting["message"]
    assert pool.pods("second") == []
    pool.serve(loading)
    pool.serve(pool.pod("second"))
    pool.wait("second", "Ready")
