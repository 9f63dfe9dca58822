"""What is written: only what differs, only what is ours, only in the version that was seen."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from berth.planning import names
from berth.planning.changes import Changes, plan_changes
from berth.planning.children import with_applied_hash
from berth.planning.plan import Apply, Delete
from berth.planning.policy import Policy
from berth.planning.reasons import Reason
from berth.planning.world import Refusal, child_from, subject_from
from support import builders
from support.builders import NOW

POLICY = Policy()
SUBJECT = subject_from(builders.model())


def wanted(kind: str = "Deployment", replicas: int = 1) -> dict[str, Any]:
    owner = {**builders.owner(), "blockOwnerDeletion": False}
    metadata = {"name": "m", "namespace": builders.NAMESPACE, "labels": names.child_labels("m", "custom")}
    metadata["ownerReferences"] = [owner]
    return with_applied_hash({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {"replicas": replicas}})


def stored(manifest: dict[str, Any], version: int = 7, **metadata: Any) -> dict[str, Any]:
    """The object as the API server shows it after an apply."""
    identity = builders.metadata(manifest["kind"], "m", version, None)
    return {**manifest, "metadata": {**identity, **manifest["metadata"], **metadata}, "status": {}}


def changes(
    desired: list[dict[str, Any]],
    *observed: dict[str, Any],
    refusals: tuple[Refusal, ...] = (),
    stubborn: dict[str, tuple[str, frozenset[str]]] | None = None,
    later: float = 0,
) -> Changes:
    seen = {manifest["kind"]: child_from(manifest) for manifest in observed}
    moment = NOW + timedelta(seconds=later)
    return plan_changes(SUBJECT, desired, seen, {r.kind: r for r in refusals}, stubborn or {}, POLICY, moment)


def refusal(reason: str, of: dict[str, Any]) -> Refusal:
    return Refusal(of["kind"], "m", reason, "no", of["metadata"]["annotations"][names.APPLIED_ANNOTATION], NOW)


# ---- ours ----------------------------------------------------------------------------------------------------


def test_a_missing_object_is_made_without_force() -> None:
    assert changes([wanted()]).writes == (Apply(wanted(), force=False),)


def test_an_object_that_is_as_desired_is_left_alone() -> None:
    assert changes([wanted()], stored(wanted())).writes == ()


def test_what_others_have_added_is_left_alone() -> None:
    seen = stored(wanted())
    seen["metadata"]["labels"] = {**seen["metadata"]["labels"], "team": "a"}
    seen["spec"] = {**seen["spec"], "paused": True}
    assert changes([wanted()], seen).writes == ()


def test_a_difference_is_applied_with_force_to_the_version_that_was_seen() -> None:
    (write,) = changes([wanted(replicas=2)], stored(wanted())).writes
    assert isinstance(write, Apply)
    assert write.force
    assert write.manifest["metadata"]["resourceVersion"] == "7"
    assert write.manifest["metadata"]["uid"] == "deployment-m"


def test_drift_is_put_back() -> None:
    seen = {**stored(wanted()), "spec": {"replicas": 9}}
    assert len(changes([wanted()], seen).writes) == 1


def test_what_was_removed_from_the_manifest_is_removed_from_the_object() -> None:
    before = wanted()
    before = with_applied_hash({**before, "spec": {**before["spec"], "paused": True}})
    assert len(changes([wanted()], stored(before)).writes) == 1


def test_what_the_server_keeps_different_is_not_applied_again_and_again() -> None:
    seen = {**stored(wanted()), "spec": {"replicas": 9}}
    digest = wanted()["metadata"]["annotations"][names.APPLIED_ANNOTATION]
    kept = {"Deployment": (digest, frozenset({"spec.replicas"}))}
    assert changes([wanted()], seen, stubborn=kept).writes == ()


def test_another_difference_than_the_stubborn_one_is_applied() -> None:
    seen = {**stored(wanted()), "spec": {"replicas": 9}}
    digest = wanted()["metadata"]["annotations"][names.APPLIED_ANNOTATION]
    kept = {"Deployment": (digest, frozenset({"spec.other"}))}
    assert len(changes([wanted()], seen, stubborn=kept).writes) == 1


def test_what_is_unwanted_is_deleted_in_the_version_that_was_seen() -> None:
    seen = stored(wanted("PodDisruptionBudget"))
    expected = Delete("PodDisruptionBudget", builders.NAMESPACE, "m", "poddisruptionbudget-m", "7")
    assert changes([], seen).writes == (expected,)


def test_what_is_being_deleted_is_neither_deleted_nor_written() -> None:
    seen = stored(wanted(), deletionTimestamp=builders.ago())
    assert changes([], seen).writes == ()
    assert changes([wanted(replicas=2)], seen).writes == ()


# ---- not ours ------------------------------------------------------------------------------------------------


def test_a_foreign_object_is_left_alone_and_named() -> None:
    found = changes([wanted("Service")], builders.child("Service", ours=False))
    assert found.writes == ()
    assert found.invalid is not None
    assert found.invalid[0] == Reason.NAME_CONFLICT
    assert "Service m exists already" in found.invalid[1]


def test_no_server_is_started_while_its_name_is_taken() -> None:
    found = changes([wanted("Service"), wanted()], builders.child("Service", ours=False))
    assert found.writes == ()


def test_servers_that_exist_are_still_looked_after_when_a_name_is_taken() -> None:
    found = changes([wanted("Service"), wanted(replicas=2)], builders.child("Service", ours=False), stored(wanted()))
    assert [write.manifest["kind"] for write in found.writes] == ["Deployment"]


def test_an_object_of_another_controller_is_not_ours_whatever_its_labels_say() -> None:
    theirs = builders.child(owned_by=builders.owner("their-uid", "Release"))
    found = changes([wanted()], theirs)
    assert found.writes == ()
    assert found.invalid is not None
    assert "Release" in found.invalid[1]


def test_a_foreign_object_is_never_deleted() -> None:
    assert changes([], builders.child("PodDisruptionBudget", ours=False)).writes == ()
    assert changes([], builders.child("PodDisruptionBudget")).writes == ()


def test_a_foreign_object_that_is_not_needed_is_no_conflict() -> None:
    assert changes([wanted()], builders.child("PodDisruptionBudget", ours=False)).invalid is None


def test_an_orphan_of_the_model_is_adopted_without_force() -> None:
    (write,) = changes([wanted()], builders.child()).writes
    assert isinstance(write, Apply)
    assert not write.force


def test_what_a_deleted_namesake_has_left_is_waited_for_not_reported() -> None:
    """The garbage collector is a moment behind when a Model is deleted and made again."""
    left = builders.child(owned_by=builders.owner("old-uid"))
    found = changes([wanted()], left)
    assert (found.writes, found.invalid) == ((), None)


# ---- refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [Reason.QUOTA_EXCEEDED, Reason.FORBIDDEN])
def test_what_may_be_allowed_any_time_is_refused_for_now(reason: Reason) -> None:
    found = changes([wanted()], refusals=(refusal(reason, wanted()),))
    assert (found.writes, found.refused, found.invalid) == ((), (reason, "no"), None)


@pytest.mark.parametrize("reason", [Reason.INVALID_SPEC, Reason.NAME_CONFLICT])
def test_what_a_person_has_to_change_is_invalid(reason: Reason) -> None:
    found = changes([wanted()], refusals=(refusal(reason, wanted()),))
    assert (found.writes, found.refused, found.invalid) == ((), None, (reason, "no"))


def test_a_refused_object_is_tried_again_after_its_time_and_shown_meanwhile() -> None:
    refused = (refusal(Reason.INVALID_SPEC, wanted()),)
    early = changes([wanted()], refusals=refused, later=10)
    late = changes([wanted()], refusals=refused, later=POLICY.refusal_interval)
    assert (early.writes, early.look_again) == ((), POLICY.refusal_interval - 10)
    assert (len(late.writes), late.look_again) == (1, None)
    assert late.invalid == early.invalid, "the status must not change in between"


def test_a_clock_that_was_set_back_does_not_hold_a_refused_object_for_long() -> None:
    found = changes([wanted()], refusals=(refusal(Reason.INVALID_SPEC, wanted()),), later=-86_400)
    assert len(found.writes) == 1


def test_another_manifest_than_the_refused_one_is_tried_at_once() -> None:
    found = changes([wanted(replicas=2)], refusals=(refusal(Reason.INVALID_SPEC, wanted()),))
    assert (len(found.writes), found.invalid) == (1, None)


def test_a_refused_object_does_not_hold_the_others() -> None:
    found = changes([wanted(), wanted("Service")], refusals=(refusal(Reason.QUOTA_EXCEEDED, wanted()),))
    assert [write.manifest["kind"] for write in found.writes] == ["Service"]


def test_a_model_of_another_uid_owns_nothing_of_ours() -> None:
    other = replace(SUBJECT, uid="other")
    seen = {"Deployment": child_from(stored(wanted()))}
    assert plan_changes(other, [], seen, {}, {}, POLICY, NOW).writes == ()
