"""Projections of what the API server shows: nothing that a decision needs is lost, nothing absent is a surprise."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from berth.planning import names
from berth.planning.pods import pod_from
from berth.planning.times import format_time, parse_time
from berth.planning.world import child_from, subject_from
from support import builders
from support.builders import NOW, ago

moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(moments)
def test_times_survive_being_written_and_read(moment: datetime) -> None:
    assert parse_time(format_time(moment)) == moment.replace(microsecond=0)


def test_times_of_leases_and_events_have_fractions() -> None:
    assert parse_time("2026-01-01T12:00:00.250000Z") == NOW + timedelta(milliseconds=250)


def test_no_time_is_none() -> None:
    assert parse_time(None) is None


def test_times_are_in_utc() -> None:
    moment = NOW.astimezone(timezone(timedelta(hours=9)))
    assert parse_time(format_time(moment)) == NOW


def test_a_pod_that_the_kubelet_has_not_seen_is_pending() -> None:
    bare = {"metadata": builders.metadata("Pod", "p", 1, None)}
    pod = pod_from(bare)
    assert (pod.phase, pod.ready, pod.scheduled, pod.containers, pod.server) == ("Pending", False, False, (), None)
    assert (pod.model, pod.template_hash, pod.node) == ("", "", "")


def test_a_serving_pod_is_ready_since_its_condition_says_so() -> None:
    pod = pod_from(builders.serving_pod(ready_changed=30))
    assert pod.ready
    assert (pod.ready_since, pod.unready_since) == (NOW - timedelta(seconds=30), None)


def test_a_pod_that_is_not_ready_has_been_so_since_its_condition_says() -> None:
    pod = pod_from(builders.pod(node="n1", ready_changed=30))
    assert (pod.ready_since, pod.unready_since) == (None, NOW - timedelta(seconds=30))


def test_a_pod_with_a_node_is_scheduled() -> None:
    pod = pod_from(builders.pod(node="n1", scheduled_before=40))
    assert pod.scheduled
    assert pod.scheduled_since == NOW - timedelta(seconds=40)


def test_the_words_of_the_scheduler_are_kept() -> None:
    assert pod_from(builders.pod(unschedulable="no room")).unschedulable_message == "no room"


def test_pods_that_a_queue_holds_back_wait_too() -> None:
    gated = builders.pod()
    gated["status"]["conditions"][0] |= {"reason": "SchedulingGated", "message": "gated"}
    assert pod_from(gated).unschedulable_message == "gated"


def test_ended_pods_hold_no_gpu() -> None:
    assert [pod_from(builders.pod(phase=phase)).living for phase in ("Pending", "Running", "Failed", "Succeeded")] == [
        True,
        True,
        False,
        False,
    ]


def test_the_server_is_found_beside_sidecars_and_init_containers() -> None:
    init = builders.container("server")
    sidecar = builders.container("sidecar", running_for=1)
    server = builders.container(running_for=1, restarts=3)
    pod = pod_from(builders.pod(containers=(sidecar, server), init=(init,)))
    assert pod.server is not None
    assert (pod.server.restarts, pod.server.initial, pod.restarts) == (3, False, 3)


def test_a_termination_tells_how_long_the_container_ran() -> None:
    pod = pod_from(builders.pod(containers=(builders.container(last=builders.ended(137, ran=90)),)))
    ended = pod.containers[0].last_terminated
    assert ended is not None
    assert (ended.exit_code, ended.ran_seconds) == (137, 90)


def test_a_termination_of_a_lost_container_has_no_times() -> None:
    lost = {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None}
    pod = pod_from(builders.pod(containers=(builders.container(terminated=lost),)))
    assert pod.containers[0].terminated is not None
    assert pod.containers[0].terminated.ran_seconds is None


def test_a_child_carries_its_whole_body_without_managed_fields() -> None:
    deployment = builders.child(owned_by=builders.owner())
    seen = child_from({**deployment, "metadata": {**deployment["metadata"], "managedFields": [{"manager": "x"}]}})
    assert seen.manifest() == deployment
    assert (seen.owner_uid, seen.owner_kind, seen.model) == (builders.MODEL_UID, "Model", "m")


def test_only_the_controller_is_the_owner() -> None:
    owner = {**builders.owner(), "controller": False}
    assert child_from(builders.child(owned_by=owner)).owner_uid == ""


def test_of_a_foreign_object_only_the_identity_is_kept() -> None:
    seen = child_from(builders.child("Service", ours=False, labels={names.MODEL_LABEL: "m"}))
    assert (seen.model, seen.manifest(), seen.name) == ("", {}, "m")


def test_a_model_without_status_has_an_empty_one() -> None:
    manifest = builders.model()
    del manifest["status"]
    subject = subject_from(manifest)
    assert (subject.status, subject.annotations, subject.deleting) == ({}, {}, False)


def test_a_model_that_is_being_deleted_says_so() -> None:
    assert subject_from(builders.model(deleting=True)).deleting


def test_builders_write_times_as_the_api_server_does() -> None:
    assert ago(0) == format_time(NOW)
