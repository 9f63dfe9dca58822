"""What goes wrong with real containers is named, with what to do about it, and given up in time."""

import pytest

from support.kube import eventually
from support.models import Manifest, Served, patch, pods, wait_for_phase, wait_for_stall
from support.servers import HTTPD, Phases, address, ask, llama, shell, wait_for_reason

pytestmark = pytest.mark.cluster


def _status(served: Served, name: str) -> Manifest:
    found = served.cluster.get("model", name, served.namespace)
    assert found is not None
    status: Manifest = found["status"]
    return status


def _holds_nothing(served: Served, name: str) -> None:
    deployment = served.cluster.get("deployment", name, served.namespace)
    assert deployment is not None
    eventually(
        lambda: (served.cluster.get("deployment", name, served.namespace) or {})["spec"]["replicas"] == 0,
        20,
        "0 replicas",
    )
    eventually(lambda: not pods(served.cluster, served.namespace, name), 30, "no Pods")


def test_a_crash_loop_is_given_up_and_a_change_starts_anew(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(llama(name, path="missing.gguf"), namespace=namespace)
    message = wait_for_reason(where, namespace, name, "CrashLoop")
    assert "exit code 1" in message
    assert "missing.gguf" in message, "the last lines of the server"
    failure = _status(served, name)["lastFailure"]
    assert failure["reason"] == "CrashLoop"
    assert failure["exitCode"] == 1
    assert "missing.gguf" in failure["message"]
    assert "missing.gguf" in wait_for_stall(where, namespace, name, "CrashLoop", 60)
    assert where.phase(name, namespace) == "Failed"
    _holds_nothing(served, name)
    assert where.phase(name, namespace) == "Failed"
    with Phases(where, namespace, name) as watched:
        patch(where, namespace, name, {"spec": {"source": {"uri": "pvc://quickstart-weights/tiny.gguf"}}})
        wait_for_phase(where, namespace, name, "Ready", 60)
    assert watched.phases[-1] in ("Ready", "Loading")
    assert ask(address(where, namespace, name))


def test_an_image_that_does_not_exist_is_named_and_given_up(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    image = "localhost/no-such-server:1"
    where.apply(shell(name, HTTPD, {"image": image}), namespace=namespace)
    message = wait_for_reason(where, namespace, name, "ImagePullFailed")
    assert image in message
    wait_for_stall(where, namespace, name, "ImagePullFailed", 30)
    _holds_nothing(served, name)
    patch(where, namespace, name, {"spec": {"serving": {"image": "localhost/busybox:1"}}})
    wait_for_phase(where, namespace, name, "Ready", 60)


def test_a_missing_secret_is_named_and_waited_for(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    reference = {"secretKeyRef": {"name": f"{name}-token", "key": "token"}}
    where.apply(shell(name, HTTPD, {"env": [{"name": "TOKEN", "valueFrom": reference}]}), namespace=namespace)
    message = wait_for_reason(where, namespace, name, "SecretNotFound")
    assert f"{name}-token" in message
    where.kubectl("-n", namespace, "create", "secret", "generic", f"{name}-token", "--from-literal=token=x")
    wait_for_phase(where, namespace, name, "Ready", 90)


def test_a_server_over_its_memory_limit_is_out_of_memory(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(shell(name, "tail /dev/zero"), namespace=namespace)
    message = wait_for_reason(where, namespace, name, "OutOfMemory", 60)
    assert "limits.memory" in message
    assert _status(served, name)["lastFailure"]["exitCode"] == 137
    wait_for_stall(where, namespace, name, "OutOfMemory", 60)
    _holds_nothing(served, name)


def test_a_server_that_never_listens_runs_into_the_startup_timeout(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    health = {"period": "1s", "timeout": "1s", "startupTimeout": "5s"}
    where.apply(shell(name, "trap 'exit 143' TERM; while :; do sleep 0.2; done", health=health), namespace=namespace)
    message = wait_for_stall(where, namespace, name, "StartupTimeout", 60)
    assert "health.startupTimeout" in message
    _holds_nothing(served, name)


def test_tokens_in_the_last_words_of_a_server_are_redacted(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    secret = "hf_" + "abcdefghijklmnop"
    where.apply(shell(name, f"echo 'cannot log in with {secret}'; exit 7"), namespace=namespace)
    message = wait_for_reason(where, namespace, name, "CrashLoop")
    assert "exit code 7" in message
    assert "cannot log in with [redacted]" in message
    found = where.get("model", name, namespace)
    assert found is not None
    assert secret not in str(found["status"])
    wait_for_stall(where, namespace, name, "CrashLoop", 60)

    def events() -> list[str]:
        found = [e for e in where.list("event", namespace) if e["involvedObject"]["name"] == name]
        return [e["message"] for e in found if e["involvedObject"]["kind"] == "Model"]

    told = eventually(events, 10, "an Event")
    assert all(secret not in message for message in told)
