"""Whom to ask for the load of a server, and what its answer means."""

from typing import Any

import orjson
import pytest

from berth.api.model import BackendName, ModelSpec
from berth.backends.base import LoadMetrics
from berth.backends.registry import backend_for
from berth.planning import names
from berth.planning.load_questions import Question, can_be_asked, question, server_name, understood
from berth.planning.load_state import Reading
from berth.planning.pods import Pod, pod_from
from support import builders

METRICS = LoadMetrics("/metrics", "busy", "queued", worked="busy_total")
SIDECAR = builders.container(names.DRAIN_CONTAINER, running_for=50, started=True)


def serving(**more: Any) -> Pod:
    return pod_from(builders.serving_pod(**{"port": 8000, **more}))


def test_servers_that_have_started_are_asked() -> None:
    loading = builders.container(running_for=5)
    assert can_be_asked(serving())
    assert can_be_asked(serving(ready=False))
    for pod in ({"address": ""}, {"deleting": True}, {"containers": (loading,)}, {"phase": "Failed"}):
        assert not can_be_asked(serving(**pod)), pod
    assert not can_be_asked(pod_from(builders.download_pod(address="10.0.0.1", running_for=5)))


def test_a_restart_makes_another_server() -> None:
    restarted = builders.container(running_for=5, started=True, restarts=1)
    assert server_name(serving()) != server_name(serving(containers=(restarted,)))


def test_a_server_is_asked_on_its_own_port_whatever_the_spec_says_now() -> None:
    assert question(serving(port=8123), METRICS) == Question("http://10.0.0.1:8123/metrics", METRICS)
    assert question(serving(address="fd00::1"), METRICS) == Question("http://[fd00::1]:8000/metrics", METRICS)


def test_the_sidecar_is_asked_where_there_is_one() -> None:
    assert question(serving(init=(SIDECAR,)), METRICS) == Question("http://10.0.0.1:61999/load", None)
    asked = question(serving(init=(SIDECAR,), port=names.DRAIN_PORT), METRICS)
    assert asked == Question("http://10.0.0.1:61998/load", None)


def test_nobody_is_asked_who_cannot_tell() -> None:
    assert question(serving(init=(SIDECAR,)), None) is None
    assert question(serving(port=0), METRICS) is None
    assert question(serving(), LoadMetrics("/metrics", "busy", needs_key=True)) is None


def test_metrics_are_read_as_the_backend_writes_them() -> None:
    asked = Question("http://10.0.0.1:8000/metrics", METRICS)
    page = b'busy{engine="0"} 1\nbusy{engine="1"} 2\nqueued 4\nbusy_total 9\n'
    assert understood(asked, page) == Reading(3, 4, 9)
    assert understood(asked, b"busy 1\nqueued 0\n") == Reading(1, 0, None)
    for page in (b"", b"busy 1\n", b"busy NaN\nqueued 0\n", b"\xff\xfe"):
        assert understood(asked, page) is None


def test_answers_of_the_sidecar_are_believed_as_far_as_they_make_sense() -> None:
    asked = Question("http://10.0.0.1:61999/load", None)
    assert understood(asked, orjson.dumps({"running": 1, "waiting": 0.0, "worked": None})) == Reading(1, 0, None)
    assert understood(asked, orjson.dumps({"running": 0, "waiting": 2, "worked": 7})) == Reading(0, 2, 7)
    for nonsense in ({"running": 1}, {"running": "1", "waiting": 0}, {"running": -1, "waiting": 0}, [], None, True):
        assert understood(asked, orjson.dumps(nonsense)) is None
    assert understood(asked, b"{") is None


@pytest.mark.parametrize("backend", [BackendName.VLLM, BackendName.SGLANG, BackendName.TGI, BackendName.LLAMACPP])
def test_every_server_that_tells_its_requests_counts_them_too(backend: BackendName) -> None:
    spec = ModelSpec.model_validate(builders.spec())
    metrics = backend_for(backend).load(spec)
    assert metrics is not None
    assert metrics.worked
