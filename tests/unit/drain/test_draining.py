"""When a server may end: what its metrics say, and what happens when they say nothing."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from berth.backends.load import sample_sum
from berth.drain.draining import Calm, Drain, Times
from berth.drain.server import Look, Metrics, Server, Unload
from unit.drain.server_beside import ServerBeside

QUICK = Times(routing=0.1, drain=20, grace=4, calm=0.2)
METRICS = Metrics("/metrics", running="busy")


@pytest.fixture
def server() -> Iterator[ServerBeside]:
    with ServerBeside() as running:
        yield running


def look(server: ServerBeside, metrics: Metrics = METRICS, key: str = "") -> Look:
    return Server("127.0.0.1", server.port, key).look(metrics)


# ---- reading metrics -------------------------------------------------------------------------------------------

PAGE = """# HELP busy{} is no sample
# TYPE busy gauge
busy_total 7
busy 2
queued{model="a b}",slot="1"} 1.5e0
queued{model="c"} 3 1700000000
broken{a="b"} many
infinite NaN
"""


@pytest.mark.parametrize(
    ("name", "value"), [("busy", 2), ("busy_total", 7), ("queued", 4.5), ("usy", None), ("broken", None), ("a.b", None)]
)
def test_samples_are_summed_over_their_labels(name: str, value: float | None) -> None:
    assert sample_sum(PAGE, name) == value


def test_what_is_no_finite_number_says_nothing() -> None:
    assert sample_sum(PAGE, "infinite") is None
    assert sample_sum("", "busy") is None


# ---- one look --------------------------------------------------------------------------------------------------


def test_running_and_waiting_requests_count(server: ServerBeside) -> None:
    server.text = PAGE
    assert look(server, Metrics("/metrics", "busy", "queued", "busy_total")) == Look(6.5, worked=7, waiting=4.5)


def test_a_metric_that_is_missing_means_that_nothing_is_known(server: ServerBeside) -> None:
    seen = look(server, Metrics("/metrics", "busy", "queued"))
    assert (seen.requests, seen.why) == (None, "/metrics has no number for queued")


def test_an_answer_without_metrics_means_that_nothing_is_known(server: ServerBeside) -> None:
    server.status = 500
    assert look(server).requests is None
    server.status = 401
    assert "API key" in look(server).why


def test_a_server_that_loads_has_no_requests(server: ServerBeside) -> None:
    server.status = 503
    assert look(server).requests is None
    assert look(server, Metrics("/metrics", "busy", loading_status=503)).requests == 0


def test_the_key_goes_along(server: ServerBeside) -> None:
    look(server, key="secret")
    assert server.asked == [("GET", "/metrics", "", "Bearer secret")]


def test_where_nobody_listens_there_are_no_requests() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert Server("127.0.0.1", port).look(METRICS).requests == 0


# ---- idle for long enough ----------------------------------------------------------------------------------------


def test_a_server_has_to_be_idle_for_a_while() -> None:
    calm = Calm(1)
    assert [calm.after(Look(0), at) for at in (10, 10.5, 10.9, 11)] == [False, False, False, True]


@pytest.mark.parametrize("interruption", [Look(1), Look(None), Look(0, worked=8)])
def test_anything_else_makes_it_begin_anew(interruption: Look) -> None:
    calm = Calm(1)
    before, after = Look(0, worked=7), Look(0, worked=interruption.worked or 7)
    seen = [(before, 10), (before, 10.5), (interruption, 10.9), (after, 11.2), (after, 12.1)]
    assert [at for look, at in seen if calm.after(look, at)] == []
    assert calm.after(after, 12.2)


# ---- a whole drain -----------------------------------------------------------------------------------------------


def drain(server: ServerBeside, metrics: Metrics | None = METRICS, unload: Unload | None = None, **times: float) -> str:
    return Drain(Server("127.0.0.1", server.port), metrics, unload, replace(QUICK, **times)).run()


def test_an_idle_server_may_end_at_once(server: ServerBeside) -> None:
    assert drain(server).startswith("no request is left after ")


def test_requests_are_waited_for(server: ServerBeside) -> None:
    server.text = "busy 3\n"
    threading.Timer(0.6, lambda: setattr(server, "text", "busy 0\n")).start()
    began = time.monotonic()
    assert drain(server).startswith("no request is left")
    assert time.monotonic() - began >= 0.8


def test_nothing_is_looked_at_while_requests_are_still_sent(server: ServerBeside) -> None:
    began, seen = time.monotonic(), server.asked
    thread = threading.Thread(target=drain, args=(server,), kwargs={"routing": 0.4})
    thread.start()
    while not seen:
        time.sleep(0.01)
    assert time.monotonic() - began >= 0.4
    thread.join()


@pytest.mark.parametrize("trouble", ["busy", "broken", "missing", "dripping", "unknown"])
def test_the_drain_time_is_never_exceeded(server: ServerBeside, trouble: str) -> None:
    server.text = "busy 3\n" if trouble == "busy" else "nothing\n" if trouble == "missing" else "busy 0\n"
    server.status = 500 if trouble == "broken" else 200
    server.drip = trouble == "dripping"
    began = time.monotonic()
    assert drain(server, None if trouble == "unknown" else METRICS, drain=0.5).startswith("the time is up")
    assert 0.6 <= time.monotonic() - began < 5


def test_without_drain_time_there_is_time_for_routing_only(server: ServerBeside) -> None:
    assert drain(server, drain=0).startswith("the time is up after 0.")


def test_memory_is_freed_when_the_requests_are_done(server: ServerBeside) -> None:
    ended = drain(server, unload=Unload("PUT", "/free", '{"a": 1}'))
    assert ended.startswith("no request is left, memory: /free answers 200")
    assert server.asked[-1][:3] == ("PUT", "/free", '{"a": 1}')


def test_freeing_memory_takes_no_more_than_half_of_what_the_end_may_take(server: ServerBeside) -> None:
    server.drip = True
    began = time.monotonic()
    ended = drain(server, None, Unload("POST", "/free"), drain=0.2, grace=1.0)
    assert "no answer in time" in ended
    assert time.monotonic() - began < 5


def test_a_drain_can_be_skipped_for_good(server: ServerBeside) -> None:
    server.text = "busy 3\n"
    whole = Drain(Server("127.0.0.1", server.port), METRICS, Unload("POST", "/free"), QUICK)
    threading.Timer(0.5, whole.skip).start()
    began = time.monotonic()
    assert whole.run().startswith("the drain is skipped after")
    assert time.monotonic() - began < 5
    assert whole.run().startswith("the drain is skipped after 0.")
    assert "/free" not in {path for _, path, _, _ in server.asked}
