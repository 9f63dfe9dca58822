"""Nothing that a download says, and nothing that stands in a status, brings a ModelCache down."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.api.model_cache import ModelCache
from berth.planning.cache_plan import decide_cache
from berth.planning.cache_world import read_message, understood
from berth.planning.plan import Plan
from support import builders
from support.builders import NAMESPACE, URI
from support.cache_simulation import CacheSimulation, bound

# ---- messages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "killed", "[]", "7", '{"a": 1}', '{"result": 1}', '{"result": "Maybe"}', "{"])
def test_what_is_no_message_is_none(text: str) -> None:
    assert read_message(text) is None


def test_a_message_of_the_provisioner_is_understood_as_it_is() -> None:
    plain = json.loads(builders.said(licence="mit", file="a.gguf", attempt=2))
    assert read_message(json.dumps(plain)) == plain


def test_a_message_says_only_what_makes_sense() -> None:
    nonsense = {"bytesTotal": "10", "filesTotal": True, "bytesFetched": -1, "bytesDone": 2**64, "revision": 7}
    assert understood({"result": "Succeeded", "verified": 1, "figures": {"format": "zip"}, "else": 1, **nonsense}) == {
        "result": "Succeeded"
    }


def test_a_reason_that_nobody_knows_is_a_fault_of_berth() -> None:
    found = understood({"result": "Failed", "reason": "BadLuck"})
    assert found is not None
    assert found["reason"] == "InternalError"


def ended(message: str, code: int) -> CacheSimulation:
    """A cluster whose download has ended with that message, recorded."""
    cluster = bound()
    cluster.add_model()
    cluster.reconcile()
    (job,) = cluster.jobs()
    cluster.step(job)
    (pod,) = cluster.pods_of(job)
    cluster.end(job, pod["metadata"]["name"], code=code, said=message)
    cluster.reconcile()
    return cluster


def test_success_is_what_both_the_exit_code_and_the_message_say() -> None:
    assert ended(builders.said(), 0).state() == "Present"
    assert ended(builders.said(), 1).entries[URI]["reason"] == "ProvisionerFailed"
    assert ended(builders.said_failed(), 0).entries[URI]["reason"] == "NotFound"
    assert ended("", 0).entries[URI]["reason"] == "ResultLost"
    assert ended("", 137).entries[URI]["reason"] == "ProvisionerFailed"


def test_tokens_in_a_message_are_not_shown() -> None:
    token = "hf_" + "a1b2c3d4" * 4
    cluster = ended(builders.said_failed("TokenRefused", f"the hub refuses {token}"), 65)
    assert token not in json.dumps(cluster.status)


def test_a_failure_without_words_has_a_sentence_all_the_same() -> None:
    assert ended(json.dumps({"result": "Failed"}), 65).entries[URI]["message"] == "the download ended without a message"


# ---- anything at all ------------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_FIELDS = ("reason", "message", "passing", "bytesTotal", "bytesDone", "bytesPresent", "bytesFetched", "percent", "more")
_MORE = ("seconds", "retries", "revision", "licence", "file", "figures", "verified", "filesTotal", "found", "after")
messages = st.fixed_dictionaries(
    {"result": st.sampled_from(["Succeeded", "Failed"]) | _VALUES},
    optional=dict.fromkeys((*_FIELDS, *_MORE), _VALUES),
)


def check(cluster: CacheSimulation, plan: Plan) -> None:
    """The status can be written, and leads nowhere else."""
    if plan.status is not None:
        json.dumps(plan.status)
        ModelCache.model_validate({"spec": cluster.cache["spec"], "status": plan.status})
    cluster.assert_settled(cluster.world(), plan)


@given(message=messages | _VALUES, code=st.sampled_from([0, 1, 65, 137]), told=messages, task=st.booleans())
def test_any_message_and_any_progress_is_borne(message: Any, code: int, told: dict[str, Any], task: bool) -> None:
    cluster = bound(limit="50Gi", adopt=task)
    cluster.add_model()
    cluster.reconcile()
    cluster.store.memories.progress[NAMESPACE, "pod"] = understood(told) or {}
    for job in cluster.jobs():
        cluster.keep(builders.download_pod("pod", job_uid=job["metadata"]["uid"], running_for=1))
        check(cluster, cluster.plan())
        cluster.end(job, "pod", code=code, said=json.dumps(message))
        check(cluster, cluster.plan())
        cluster.reconcile()
        check(cluster, cluster.plan())
        cluster.drop("Pod", "pod")


_STATES = st.sampled_from(["Pending", "Downloading", "Present", "Failed", "Removing", "Absent"])
_NUMBERS = st.integers(0, 20) | st.integers(-(2**63), 2**63 - 2)
_TIMES = st.sampled_from(
    ["2026-01-01T12:00:00Z", "2026-01-01T13:00:00+01:00", "0001-01-01T00:00:00Z", "2026-01-01", "soon"]
)
_TEXTS = st.sampled_from(["", "a", "NoSpace", "LimitExceeded", "InUse", "WaitingForSpace", "download-uid"])
entries = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", builders.entry()["name"]]), "state": _STATES},
    optional={
        "uri": st.just(URI),
        **dict.fromkeys(("bytes", "bytesDone", "percent", "attempt", "filesDone", "etaSeconds"), _NUMBERS),
        **dict.fromkeys(("failedAt", "retryAt", "lastUsedAt"), _TIMES),
        **dict.fromkeys(("reason", "message", "job", "inputs", "path", "file", "reference", "revision"), _TEXTS),
        **{name: st.booleans() for name in ("adopted", "declared", "verified")},
        "models": st.lists(st.sampled_from("mn"), max_size=2),
    },
)
discoveries = st.none() | st.fixed_dictionaries(
    {"state": st.sampled_from(["Running", "Done", "Failed"])},
    optional={"found": _NUMBERS, "after": _TEXTS, "request": _TEXTS, "attempt": _NUMBERS, "retryAt": _TIMES},
)
jobs = st.none() | st.tuples(
    st.sampled_from(["download", "remove"]), st.sampled_from(["", "Complete", "Failed"]), st.booleans()
)


@given(
    found=st.lists(entries, max_size=2, unique_by=lambda entry: entry["name"]),
    discovery=discoveries,
    job=jobs,
    wanted=st.sampled_from(["", "Present", "Absent"]),
    model=st.booleans(),
    limit=st.sampled_from([None, "1", "20Gi"]),
    options=st.tuples(st.sampled_from(["None", "LRU"]), st.booleans()),
)
@settings(max_examples=150)
def test_any_status_is_borne_and_nothing_in_use_is_removed(
    found: list[dict[str, Any]],
    discovery: dict[str, Any] | None,
    job: tuple[str, str, bool] | None,
    wanted: str,
    model: bool,
    limit: str | None,
    options: tuple[str, bool],
) -> None:
    cluster = CacheSimulation(eviction=options[0], adopt=options[1], **({"limit": limit} if limit else {}))
    status = {"observedGeneration": 1, "phase": "Ready", "artifacts": found}
    cluster.write_status(status | ({"discovery": discovery} if discovery else {}))
    cluster.keep(builders.claim())
    if model:
        cluster.add_model()
    if wanted:
        cluster.declare({"uri": URI, "state": wanted})
    if job is not None:
        task, end, deleting = job
        cluster.keep(builders.job(builders.entry()["name"], task=task, ended=end, deleting=deleting))
    plan = cluster.plan()
    check(cluster, plan)
    if model or wanted == "Present":
        made = [change for change in plan.changes if "remove-llama" in str(change)]
        assert not [change for change in made if hasattr(change, "manifest")]


def test_a_cache_of_a_later_version_is_told_and_left_alone() -> None:
    cluster = bound()
    cluster.add_model()
    cluster.settle()
    cluster.edit(levitate=True)
    before = cluster.entries
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
    assert "spec.levitate" in cluster.status["conditions"][0]["message"]
    assert cluster.entries == before


def test_a_plan_depends_on_nothing_but_its_arguments() -> None:
    cluster = bound(limit="20Gi")
    cluster.add_model()
    world = cluster.world()
    assert decide_cache(world, cluster.now, cluster.policy) == decide_cache(replace(world), cluster.now, cluster.policy)
