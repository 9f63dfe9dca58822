"""What is wrong with a Pod is named, explained, and given time that fits."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.failures import Circumstances, Failure, Known, diagnose, last_lines, unschedulable, worst
from berth.planning.pods import pod_from
from berth.planning.policy import Policy
from berth.planning.reasons import BREAKER, Reason
from support import builders
from support.builders import NOW, container, ended, pod

POLICY = Policy()
STARTUP = 600.0


def diagnosed(manifest: dict[str, Any], later: float = 0, known: Known | None = None) -> Failure | None:
    return diagnose(pod_from(manifest), STARTUP, POLICY, NOW + timedelta(seconds=later), known)


def with_server(**status: Any) -> dict[str, Any]:
    return pod(node="n1", containers=(container(**status),))


def crashed(restarts: int = 1, age: float = 60, waiting: str = "CrashLoopBackOff", **how: Any) -> dict[str, Any]:
    server = container(waiting=waiting, restarts=restarts, last=ended(**how))
    return pod(node="n1", created=age, containers=(server,))


# ---- nothing wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "healthy",
    [
        pod(),
        pod(unschedulable="0/3 nodes are available"),
        pod(node="n1"),
        with_server(waiting="ContainerCreating"),
        with_server(running_for=30),
        builders.serving_pod(),
        builders.serving_pod(
            containers=(container(running_for=9, ready=True, started=True, restarts=9, last=ended()),)
        ),
        pod(
            node="n1",
            init=(container("init", terminated=ended(0)),),
            containers=(container(waiting="PodInitializing"),),
        ),
        pod(node="n1", init=(container("init", terminated=ended(0), last=ended(1), restarts=1),)),
    ],
)
def test_a_pod_on_its_way_is_not_failing(healthy: dict[str, Any]) -> None:
    assert diagnosed(healthy) is None


def test_a_server_that_started_again_after_a_crash_has_recovered() -> None:
    assert diagnosed(with_server(running_for=30, started=True, restarts=3, last=ended())) is None


def test_a_running_sidecar_that_crashed_once_has_recovered() -> None:
    sidecar = container("drain", running_for=30, started=True, restarts=1, last=ended())
    assert diagnosed(pod(node="n1", init=(sidecar,), containers=(container(running_for=20),))) is None


# ---- images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waiting", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError"])
def test_an_image_that_cannot_be_pulled_is_named(waiting: str) -> None:
    failure = diagnosed(with_server(waiting=waiting, message="not found"))
    assert failure is not None
    assert (failure.reason, failure.final) == (Reason.IMAGE_PULL_FAILED, False)
    assert "not found" in failure.message
    assert "serving.image" in failure.message


def test_the_name_of_an_image_cannot_mend_itself() -> None:
    failure = diagnosed(with_server(waiting="InvalidImageName", message="bad"))
    assert failure is not None
    assert (failure.final, failure.look_again) == (True, None)


def test_patience_with_an_image_begins_when_the_failure_is_first_seen() -> None:
    """A pull of many minutes that then fails once is tried again by the kubelet: the age of the Pod says nothing."""
    late = pod(node="n1", created=5000, scheduled_before=4000, containers=(container(waiting="ErrImagePull"),))
    failure = diagnosed(late)
    assert failure is not None
    assert (failure.final, failure.at, failure.look_again) == (False, NOW, POLICY.image_pull_patience)


def test_patience_with_an_image_ends() -> None:
    known = Known("ImagePullFailed", NOW)
    failure = diagnosed(with_server(waiting="ErrImagePull"), POLICY.image_pull_patience, known)
    assert failure is not None
    assert (failure.final, failure.at, failure.look_again) == (True, NOW, None)


def test_patience_ends_when_it_says_it_will() -> None:
    known = Known("ImagePullFailed", NOW)
    failing = with_server(waiting="ErrImagePull")
    first = diagnosed(failing, 100, known)
    assert first is not None
    assert first.look_again is not None
    then = diagnosed(failing, 100 + first.look_again, known)
    assert then is not None
    assert then.final


def test_a_pod_younger_than_the_known_failure_has_its_own_patience() -> None:
    known = Known("ImagePullFailed", NOW - timedelta(seconds=5000))
    failure = diagnosed(with_server(waiting="ErrImagePull"), 0, known)
    assert failure is not None
    assert (failure.final, failure.at) == (False, NOW)


def test_a_clock_that_was_set_back_does_not_end_patience_nor_move_its_beginning() -> None:
    known = Known("ImagePullFailed", NOW + timedelta(hours=1))
    failure = diagnosed(with_server(waiting="ErrImagePull"), 0, known)
    assert failure is not None
    assert (failure.final, failure.at) == (False, known.at)


def test_a_node_whose_clock_is_ahead_does_not_move_the_beginning_of_patience() -> None:
    ahead = pod(node="n1", scheduled_before=-300, containers=(container(waiting="ErrImagePull"),))
    first = diagnosed(ahead)
    assert first is not None
    assert first.at is not None
    second = diagnosed(ahead, 60, Known(first.reason, first.at))
    assert second is not None
    assert second.at == first.at


# ---- configuration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ['secret "hf" not found', "couldn't find key token in Secret models/hf"])
def test_a_missing_secret_is_named_with_its_namespace(message: str) -> None:
    failure = diagnosed(with_server(waiting="CreateContainerConfigError", message=message))
    assert failure is not None
    assert failure.reason == Reason.SECRET_NOT_FOUND
    assert message in failure.message
    assert "namespace models" in failure.message


def test_a_missing_config_map_is_another_error() -> None:
    failure = diagnosed(with_server(waiting="CreateContainerConfigError", message='configmap "c" not found'))
    assert failure is not None
    assert (failure.reason, failure.message) == (Reason.CONFIGURATION_ERROR, 'configmap "c" not found')


def test_a_container_that_the_runtime_cannot_make_is_given_up_in_time() -> None:
    """The kubelet counts no restarts for it."""
    known = Known("ContainerStartFailed", NOW)
    failing = with_server(waiting="CreateContainerError", message="no command specified")
    early, late = diagnosed(failing, 1, known), diagnosed(failing, POLICY.config_patience, known)
    assert early is not None
    assert late is not None
    assert (early.reason, early.final, late.final) == (Reason.CONTAINER_START_FAILED, False, True)


# ---- crashes -------------------------------------------------------------------------------------------------


def test_a_crash_shows_exit_code_and_last_lines() -> None:
    failure = diagnosed(crashed(code=3, message="one\n\ntwo\nValueError: bad\n"))
    assert failure is not None
    assert (failure.reason, failure.exit_code, failure.final) == (Reason.CRASH_LOOP, 3, False)
    assert failure.message == "container server ended with exit code 3: one | two | ValueError: bad"


def test_a_crash_without_words_says_so() -> None:
    failure = diagnosed(crashed())
    assert failure is not None
    assert failure.message.endswith("left no message")


def test_a_failing_init_container_is_a_crash() -> None:
    init = container("download", waiting="CrashLoopBackOff", last=ended(2), restarts=1)
    failure = diagnosed(pod(node="n1", init=(init,), containers=(container(waiting="PodInitializing"),)))
    assert failure is not None
    assert "download" in failure.message


@pytest.mark.parametrize(("restarts", "final"), [(4, False), (5, True), (6, True)])
def test_the_budget_of_crashes_is_spent_at_its_number(restarts: int, final: bool) -> None:
    failure = diagnosed(crashed(restarts))
    assert failure is not None
    assert failure.final is final


def test_a_crash_after_a_long_run_is_no_part_of_a_loop() -> None:
    failure = diagnosed(crashed(9, age=90_000, ran=POLICY.crash_run, code=1))
    assert failure is not None
    assert not failure.final


def test_one_crash_more_in_a_long_life_does_not_spend_the_budget() -> None:
    month = 30 * 24 * 3600
    failure = diagnosed(crashed(9, age=month, waiting="", ran=20))
    assert failure is not None
    assert not failure.final


def test_a_loop_late_in_a_long_life_spends_the_budget() -> None:
    month = 30 * 24 * 3600
    failure = diagnosed(crashed(9, age=month, ran=20))
    assert failure is not None
    assert failure.final


def test_host_memory_that_ran_out_is_told_from_other_crashes() -> None:
    failure = diagnosed(crashed(code=137, reason="OOMKilled"))
    assert failure is not None
    assert failure.reason == Reason.OUT_OF_MEMORY
    assert "limits.memory" in failure.message


@pytest.mark.parametrize(
    "words",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        "CUDA error: out of memory",
        "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
    ],
)
def test_gpu_memory_that_ran_out_is_told_from_other_crashes(words: str) -> None:
    failure = diagnosed(crashed(message=words))
    assert failure is not None
    assert failure.reason == Reason.OUT_OF_MEMORY
    assert "GPU" in failure.message


@pytest.mark.parametrize(
    "words",
    [
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        "ValueError: Free memory on device cuda:0 (3/23 GiB) on startup is less than desired GPU memory utilization",
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
    ],
)
def test_servers_that_look_before_they_take_are_out_of_gpu_memory(words: str) -> None:
    failure = diagnosed(crashed(message=words))
    assert failure is not None
    assert (failure.reason, failure.message.startswith("the GPU")) == (Reason.OUT_OF_MEMORY, True)


@pytest.mark.parametrize(
    "words",
    [
        "RuntimeError: No CUDA GPUs are available",
        "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
        "CUDA error: uncorrectable ECC error encountered",
        "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
        "CUDA driver version is insufficient for CUDA runtime version",
    ],
)
def test_a_broken_gpu_is_told_from_other_crashes(words: str) -> None:
    failure = diagnosed(crashed(message=words))
    assert failure is not None
    assert failure.reason == Reason.GPU_FAULT
    assert "n1" in failure.message


def test_a_container_whose_process_cannot_be_made_has_not_crashed() -> None:
    failure = diagnosed(crashed(code=128, reason="StartError", message='exec: "serve": executable file not found'))
    assert failure is not None
    assert (failure.reason, "serve" in failure.message) == (Reason.CONTAINER_START_FAILED, True)


def test_without_a_limit_it_is_the_node_that_ran_out_of_memory() -> None:
    killed = pod_from(crashed(code=137, reason="OOMKilled"))
    failure = diagnose(killed, STARTUP, POLICY, NOW, None, Circumstances(memory_limited=False))
    assert failure is not None
    assert failure.reason == Reason.OUT_OF_MEMORY
    assert "Set limits.memory" in failure.message


@pytest.mark.parametrize(("restarts", "earlier", "final"), [(1, 3, False), (1, 4, True), (0, 5, False)])
def test_pods_that_were_lost_before_spend_the_budget_of_the_next(restarts: int, earlier: int, final: bool) -> None:
    failure = diagnose(pod_from(crashed(restarts)), STARTUP, POLICY, NOW, None, Circumstances(earlier=earlier))
    assert failure is not None
    assert failure.final is final


# ---- servers that do not start -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 137, 143])
@pytest.mark.parametrize("ran", [STARTUP - 2, STARTUP, STARTUP + 15])
def test_a_server_that_the_startup_probe_ended_has_one_more_try(code: int, ran: float) -> None:
    """Each of them holds a GPU for all of the time."""
    for restarts in (1, 2):
        server = container(waiting="CrashLoopBackOff", restarts=restarts, last=ended(code, ran=ran))
        failure = diagnosed(pod(node="n1", created=1400, ready_changed=1390, containers=(server,)))
        assert failure is not None
        assert (failure.reason, failure.final) == (Reason.STARTUP_TIMEOUT, restarts == 2)


def test_a_server_that_hung_after_it_had_served_is_told_from_one_that_did_not_start() -> None:
    server = container(restarts=1, last=ended(137, ran=86_400, ended_before=5), running_for=3)
    hung = pod(node="n1", phase="Running", created=90_000, ready_changed=40, containers=(server,))
    failure = diagnosed(hung)
    assert failure is not None
    assert (failure.reason, failure.final) == (Reason.UNRESPONSIVE, False)
    assert "health.failureThreshold" in failure.message


def test_a_server_that_was_known_to_hang_is_not_taken_for_one_that_crashed_when_the_next_one_is_not_ready() -> None:
    server = container(waiting="CrashLoopBackOff", restarts=1, last=ended(137, ran=900, ended_before=20))
    later = pod(node="n1", phase="Running", created=1000, ready_changed=3, containers=(server,))
    for before, reason in ((30, Reason.UNRESPONSIVE), (20, Reason.UNRESPONSIVE), (5000, Reason.CRASH_LOOP)):
        failure = diagnosed(later, 0, Known("Unresponsive", NOW - timedelta(seconds=before)))
        assert failure is not None
        assert failure.reason == reason


def test_a_server_that_hangs_is_named_before_it_is_restarted() -> None:
    server = container(running_for=900, started=True)
    failure = diagnosed(pod(node="n1", phase="Running", created=1000, ready_changed=20, containers=(server,)))
    assert failure is not None
    assert (failure.reason, failure.final, failure.at) == (Reason.UNRESPONSIVE, False, NOW - timedelta(seconds=20))


def test_a_server_that_is_about_to_be_ready_for_the_first_time_does_not_hang() -> None:
    server = container(running_for=30, started=True)
    assert diagnosed(pod(node="n1", phase="Running", ready_changed=60, containers=(server,))) is None


def test_a_server_that_dies_of_its_own_was_ready_until_then() -> None:
    server = container(restarts=1, last=ended(137, ran=900, ended_before=5), waiting="CrashLoopBackOff")
    failure = diagnosed(pod(node="n1", phase="Running", created=1000, ready_changed=5, containers=(server,)))
    assert failure is not None
    assert failure.reason == Reason.CRASH_LOOP


def test_a_crash_by_itself_late_in_the_start_is_a_crash() -> None:
    failure = diagnosed(crashed(code=1, ran=STARTUP + 1))
    assert failure is not None
    assert failure.reason == Reason.CRASH_LOOP


def test_a_server_that_has_not_started_in_time_is_named_while_it_runs() -> None:
    failure = diagnosed(with_server(running_for=STARTUP + 1))
    assert failure is not None
    assert (failure.reason, failure.final) == (Reason.STARTUP_TIMEOUT, False)


# ---- Pods that end as a whole --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("Evicted", Reason.EVICTED),
        ("Terminated", Reason.NODE_SHUTDOWN),
        ("NodeShutdown", Reason.NODE_REJECTED),
        ("UnexpectedAdmissionError", Reason.NODE_REJECTED),
        ("OutOfnvidia.com/gpu", Reason.NODE_REJECTED),
        ("OutOfmemory", Reason.NODE_REJECTED),
        ("Preempting", Reason.PREEMPTED),
        ("SomethingNew", Reason.POD_FAILED),
    ],
)
def test_the_end_of_a_whole_pod_is_named(reason: str, shown: Reason) -> None:
    failure = diagnosed(pod(phase="Failed", reason=reason, message="the words"))
    assert failure is not None
    assert (failure.reason, failure.message, failure.final) == (shown, "the words", False)


@pytest.mark.parametrize(
    ("disruption", "lost", "shown"),
    [
        ("EvictionByEvictionAPI", False, Reason.DRAINED),
        ("DeletionByTaintManager", False, Reason.DRAINED),
        ("DeletionByTaintManager", True, Reason.NODE_LOST),
        ("DeletionByPodGC", False, Reason.NODE_LOST),
        ("PreemptionByScheduler", False, Reason.PREEMPTED),
    ],
)
def test_whoever_takes_a_pod_away_is_named(disruption: str, lost: bool, shown: Reason) -> None:
    around = Circumstances(frozenset({"n1"} if lost else ()))
    leaving = pod_from(pod(node="n1", deleting=True, disruption=disruption))
    failure = diagnose(leaving, STARTUP, POLICY, NOW, None, around)
    assert failure is not None
    assert failure.reason == shown


def test_a_pod_that_a_person_deletes_does_not_fail() -> None:
    assert diagnosed(pod(node="n1", deleting=True, containers=(container(terminated=ended()),))) is None


def test_a_silent_node_is_named_before_its_pods_are_given_up() -> None:
    around = Circumstances(frozenset({"n1"}))
    failure = diagnose(pod_from(builders.serving_pod(ready_changed=20)), STARTUP, POLICY, NOW, None, around)
    assert failure is not None
    assert (failure.reason, failure.final) == (Reason.NODE_LOST, False)
    assert "n1" in failure.message


def test_a_pod_without_words_shows_its_reason() -> None:
    failure = diagnosed(pod(phase="Failed", reason="SomethingNew"))
    assert failure is not None
    assert "SomethingNew" in failure.message


def test_an_evicted_pod_failed_when_its_container_ended() -> None:
    evicted = pod(phase="Failed", reason="Evicted", created=5000, containers=(container(terminated=ended(137)),))
    failure = diagnosed(evicted)
    assert failure is not None
    assert failure.at == NOW - timedelta(seconds=10)


# ---- what is shown -------------------------------------------------------------------------------------------


def test_tokens_in_last_lines_are_redacted() -> None:
    failure = diagnosed(crashed(message="401 with hf_abcdefghijklmnopqrstuvwxyz"))
    assert failure is not None
    assert "abcdefgh" not in failure.message


def test_tokens_in_words_of_the_kubelet_are_redacted() -> None:
    failure = diagnosed(with_server(waiting="ErrImagePull", message="https://me:secretword@registry/v2 refused"))
    assert failure is not None
    assert "secretword" not in failure.message


@given(st.text(max_size=5000))
def test_messages_are_bounded(words: str) -> None:
    for failing in (crashed(message=words), with_server(waiting="ErrImagePull", message=words)):
        failure = diagnosed(failing)
        assert failure is not None
        assert len(failure.message) < 1300


def test_the_last_lines_are_the_last_ones() -> None:
    termination = pod_from(crashed(message="\n".join(str(n) for n in range(100)))).containers[0].last_terminated
    assert termination is not None
    assert last_lines(termination) == "95 | 96 | 97 | 98 | 99"


def test_of_several_failures_a_final_one_is_shown() -> None:
    one = Failure(Reason.CRASH_LOOP, "a", at=NOW)
    two = Failure(Reason.OUT_OF_MEMORY, "b", at=NOW - timedelta(hours=1), final=True)
    assert worst([one, two]) is two


def test_of_several_failures_the_one_that_is_shown_stays() -> None:
    one = Failure(Reason.CRASH_LOOP, "a", at=NOW)
    two = Failure(Reason.IMAGE_PULL_FAILED, "b", at=NOW - timedelta(hours=1))
    assert worst([one, two], Known("ImagePullFailed", NOW)) is two


def test_of_several_new_failures_the_latest_is_shown() -> None:
    one = Failure(Reason.CRASH_LOOP, "a", at=NOW)
    two = Failure(Reason.CRASH_LOOP, "b", at=NOW - timedelta(hours=1))
    assert worst([two, one]) is one


def test_no_failures_show_nothing() -> None:
    assert worst([]) is None


def test_the_scheduler_is_quoted_for_a_pod_without_node() -> None:
    waiting = [pod_from(pod("a")), pod_from(pod("b", unschedulable="no room")), pod_from(pod("c", node="n"))]
    assert unschedulable(waiting) == "no room"


# ---- properties ----------------------------------------------------------------------------------------------

WAITING = [
    *("", "ContainerCreating", "PodInitializing", "CrashLoopBackOff", "SomethingNew"),
    *("ErrImagePull", "ImagePullBackOff", "InvalidImageName"),
    *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
]
endings = st.builds(
    ended,
    code=st.sampled_from([0, 1, 137, 143]),
    ran=st.floats(0, 9000),
    ended_before=st.floats(-100, 5000),
    message=st.sampled_from(["", "boom", "CUDA out of memory", "no CUDA-capable device is detected"]),
    reason=st.sampled_from(["Error", "OOMKilled", "Completed", "StartError"]),
)
servers = st.builds(
    container,
    waiting=st.sampled_from(WAITING),
    message=st.sampled_from(["", 'secret "a" not found', "words"]),
    running_for=st.none() | st.floats(-100, 9000),
    started=st.booleans(),
    ready=st.booleans(),
    restarts=st.integers(0, 9),
    terminated=st.none() | endings,
    last=st.none() | endings,
)
pods = st.builds(
    pod,
    phase=st.sampled_from(["Pending", "Running", "Failed", "Succeeded", "Unknown"]),
    node=st.sampled_from(["", "n1"]),
    ready=st.booleans(),
    ready_changed=st.floats(-100, 9000),
    scheduled_before=st.floats(-100, 9000),
    containers=st.lists(servers, max_size=2).map(tuple),
    init=st.lists(servers, max_size=1).map(tuple),
    reason=st.sampled_from(["", "Evicted", "OutOfcpu"]),
    deleting=st.booleans(),
    disruption=st.sampled_from(["", "DeletionByTaintManager", "EvictionByEvictionAPI", "SomebodyNew"]),
    created=st.floats(-100, 9000),
)
knowns = st.none() | st.builds(
    Known,
    st.sampled_from([str(reason) for reason in Reason]),
    st.integers(-100, 9000).map(lambda seconds: NOW - timedelta(seconds=seconds)),
)


@given(pods, knowns)
def test_every_pod_can_be_diagnosed(manifest: dict[str, Any], known: Known | None) -> None:
    failure = diagnosed(manifest, 0, known)
    if failure is None:
        return
    assert isinstance(failure.reason, Reason)
    if failure.final:
        assert failure.reason in BREAKER, "what a generation is given up for has to be remembered"
        assert failure.look_again is None, "time changes nothing any more"
    if failure.look_again is not None:
        assert failure.look_again > 0


@given(pods, knowns)
def test_what_was_diagnosed_once_is_diagnosed_alike_when_it_is_known(
    manifest: dict[str, Any], known: Known | None
) -> None:
    """Otherwise the status would change with every look."""
    first = diagnosed(manifest, 0, known)
    if first is None or first.at is None:
        return
    later = diagnosed(manifest, 7, Known(first.reason, first.at.replace(microsecond=0)))
    assert later is not None
    if later.reason == first.reason:
        assert later.at == first.at
