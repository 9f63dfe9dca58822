"""How old Pods make way for new ones, and when a template is left as it was."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.model import ModelSpec, RolloutStrategy, UpgradePolicy
from berth.planning import names
from berth.planning.children import template_hash
from berth.planning.pods import pod_from
from berth.planning.rollout import allowed_replicas, choose_strategy, choose_template
from support import builders

OLD = {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "server", "image": "old"}]}}
FRESH = {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "server", "image": "new"}]}}
MANUAL, AUTOMATIC = UpgradePolicy.MANUAL, UpgradePolicy.AUTOMATIC


def deployment(
    template: dict[str, Any] = OLD, inputs: str = "same", replicas: int = 1, text: str | None = None
) -> dict[str, Any]:
    annotations = {
        names.TEMPLATE_INPUTS_ANNOTATION: inputs,
        names.POD_TEMPLATE_ANNOTATION: json.dumps(template) if text is None else text,
    }
    mark = {"metadata": {"labels": {names.TEMPLATE_HASH_LABEL: template_hash(template)}}}
    return builders.child(spec={"replicas": replicas, "template": mark}, annotations=annotations)


# ---- templates -----------------------------------------------------------------------------------------------


def test_the_first_template_is_a_fresh_one() -> None:
    assert choose_template(FRESH, "same", None, MANUAL).body == FRESH


def test_a_new_version_of_berth_keeps_the_template_and_says_that_it_has_another() -> None:
    chosen = choose_template(FRESH, "same", deployment(), MANUAL)
    assert (chosen.body, chosen.upgrade_available) == (OLD, True)


def test_a_new_version_that_renders_the_same_has_nothing_to_offer() -> None:
    chosen = choose_template(OLD, "same", deployment(), MANUAL)
    assert (chosen.body, chosen.upgrade_available) == (OLD, False)


def test_a_new_version_takes_over_where_that_is_wanted() -> None:
    chosen = choose_template(FRESH, "same", deployment(), AUTOMATIC)
    assert (chosen.body, chosen.upgrade_available) == (FRESH, False)


def test_a_change_of_the_spec_renders_anew() -> None:
    chosen = choose_template(FRESH, "changed", deployment(), MANUAL)
    assert (chosen.body, chosen.upgrade_available) == (FRESH, False)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"metadata": {}}', json.dumps(FRESH | {"more": 1})])
def test_an_annotation_that_somebody_edited_is_not_followed(text: str) -> None:
    assert choose_template(FRESH, "same", deployment(text=text), MANUAL).body == FRESH


@pytest.mark.parametrize("broken", [{}, {"metadata": {}}, {"metadata": {"annotations": None}, "spec": None}])
def test_a_deployment_without_our_marks_is_no_source(broken: dict[str, Any]) -> None:
    assert choose_template(FRESH, "same", broken, MANUAL).body == FRESH


# ---- strategy ------------------------------------------------------------------------------------------------


def spec(gpus: int, strategy: str = "Auto") -> ModelSpec:
    return ModelSpec.model_validate(builders.spec(gpus={"count": gpus}, rollout={"strategy": strategy}))


def test_servers_with_gpus_are_replaced_in_place() -> None:
    assert choose_strategy(spec(1))[0] is RolloutStrategy.IN_PLACE


def test_servers_without_gpus_are_replaced_with_a_surge() -> None:
    assert choose_strategy(spec(0))[0] is RolloutStrategy.SURGE


@pytest.mark.parametrize("chosen", ["Surge", "InPlace"])
@pytest.mark.parametrize("gpus", [0, 1])
def test_the_person_decides(chosen: str, gpus: int) -> None:
    assert choose_strategy(spec(gpus, chosen))[0] == chosen


# ---- replicas ------------------------------------------------------------------------------------------------


def replicas(*pods: dict[str, Any], wanted: int = 1, observed: dict[str, Any] | None = None) -> int:
    seen = [pod_from(pod) for pod in pods]
    return allowed_replicas(wanted, RolloutStrategy.IN_PLACE, "new", seen, observed)


def test_a_first_server_may_start_at_once() -> None:
    assert replicas() == 1


def test_a_new_server_waits_for_the_old_one() -> None:
    assert replicas(builders.serving_pod(template="old")) == 0


def test_a_new_server_waits_for_an_old_one_that_is_leaving() -> None:
    assert replicas(builders.serving_pod(template="old", deleting=True)) == 0


def test_a_new_server_does_not_wait_for_what_holds_no_gpu_any_more() -> None:
    assert replicas(builders.pod(template="old", phase="Failed"), builders.pod(template="old", phase="Succeeded")) == 1


def test_a_server_of_the_present_template_stays() -> None:
    assert replicas(builders.serving_pod(template="new")) == 1


def test_a_deployment_of_the_old_template_may_have_made_a_pod_that_nobody_has_seen() -> None:
    assert replicas(observed=deployment(OLD)) == 0


def test_a_deployment_that_was_emptied_lets_the_new_server_start() -> None:
    assert replicas(observed=deployment(OLD, replicas=0)) == 1


def test_several_replicas_are_replaced_one_by_one_by_the_deployment() -> None:
    assert replicas(builders.serving_pod(template="old"), wanted=3) == 3


def test_a_stopped_model_has_no_replica() -> None:
    assert replicas(wanted=0) == 0


def test_a_surge_needs_no_steps() -> None:
    old = [pod_from(builders.serving_pod(template="old"))]
    assert allowed_replicas(1, RolloutStrategy.SURGE, "new", old, deployment(OLD)) == 1


@given(
    st.lists(
        st.builds(
            builders.pod,
            template=st.sampled_from(["old", "older", "new"]),
            phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
            deleting=st.booleans(),
        ),
        max_size=4,
    )
)
def test_one_replica_in_place_never_starts_beside_an_old_one(pods: list[dict[str, Any]]) -> None:
    seen = [pod_from(p) for p in pods]
    old = [p for p in seen if (p.living or p.deleting) and p.template_hash != "new"]
    assert replicas(*pods) == (0 if old else 1)
