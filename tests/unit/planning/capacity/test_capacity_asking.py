"""What a Model asks of the capacity planner, read from its spec, its Deployment and its Pods."""

import json
from dataclasses import replace
from typing import Any

import pytest

from berth.api.model import ModelSpec, RolloutStrategy
from berth.api.model_status import MemorySource
from berth.planning import names
from berth.planning.capacity.asking import demand_of, need_of, note_on_deployment, remembered_of, share_of
from berth.planning.capacity.placement import Requirement
from berth.planning.capacity.world import Demand, Remembered, Rollout
from berth.planning.model_figures import ModelFigures, TypedWeights, WeightsFormat
from berth.planning.pods import pod_from
from berth.planning.world import subject_from
from support import builders
from support.builders import NOW
from support.gpu_clusters import remember

SUBJECT = subject_from(builders.model(creationTimestamp=builders.ago(0)))


def spec_of(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate(builders.spec(**fields))


def deployment(mark: str = "t1", replicas: int = 1, surge: int = 0, note: object = None) -> dict[str, Any]:
    annotations = (
        {} if note is None else {names.CAPACITY_ANNOTATION: note if isinstance(note, str) else json.dumps(note)}
    )
    return builders.child(
        annotations=annotations,
        spec={
            "replicas": replicas,
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1 - surge}},
            "template": {"metadata": {"labels": {names.TEMPLATE_HASH_LABEL: mark}}},
        },
    )


def asked(
    spec: ModelSpec | None = None, deployment: dict[str, Any] | None = None, *pods: dict[str, Any], **fields: Any
) -> Demand:
    spec = spec or spec_of()
    given: dict[str, Any] = {
        "wanted": 1,
        "provisioned": True,
        "template": {"spec": {}},
        "template_hash": "t1",
        "cache": "",
    }
    given |= {"need": need_of(spec, None)[0], "deployment": deployment, "pods": [pod_from(pod) for pod in pods]}
    return demand_of(SUBJECT, spec, **(given | fields))


def test_a_new_model_asks_for_what_its_spec_says() -> None:
    demand = asked(spec_of(gpus={"count": 2, "memory": "24Gi", "nodes": "Autoscaled"}, priority=7))
    assert (demand.key, demand.created_at, demand.priority, demand.autoscaled) == ("models/m", NOW, 7, True)
    assert (demand.need.count, demand.need.memory_mib, demand.need.source) == (2, 24576, MemorySource.DECLARED)
    assert (demand.replicas, demand.rollout, demand.remembered) == (0, None, None)


def test_where_it_may_go_is_what_the_wanted_template_says() -> None:
    demand = asked(template={"spec": {"nodeSelector": {"zone": "a"}}})
    assert demand.placement.terms == ((Requirement("zone", "In", ("a",)),),)


def test_a_cache_is_named_with_its_namespace() -> None:
    assert asked(cache="weights").cache == "models/weights"


def test_the_priority_of_its_pods_is_what_the_api_server_put_on_them() -> None:
    pod = builders.pod()
    assert asked(None, deployment(), {**pod, "spec": {"priority": -5}}).pod_priority == -5


# ---- memory --------------------------------------------------------------------------------------------------

FIGURES = ModelFigures(WeightsFormat.SAFETENSORS, "LlamaForCausalLM", (TypedWeights("BF16", 10**9, 2 * 10**9),))


def test_memory_is_declared_in_any_notation_and_rounded_up() -> None:
    assert need_of(spec_of(gpus={"memory": "1500M"}), None)[0].memory_mib == 1431


def test_what_is_declared_needs_no_estimate() -> None:
    assert need_of(spec_of(gpus={"memory": "1Gi"}), FIGURES)[1] is None


def test_without_figures_nothing_is_known() -> None:
    need, guess = need_of(spec_of(), None)
    assert (need.memory_mib, need.source, guess) == (None, None, None)


def test_an_estimate_that_lacks_a_part_is_none_and_says_what_is_missing() -> None:
    need, guess = need_of(spec_of(), FIGURES)
    assert (need.memory_mib, need.source) == (None, None)
    assert guess is not None
    assert guess.unknown


def test_a_server_that_takes_what_it_finds_cannot_be_capped() -> None:
    vllm = ModelSpec.model_validate({"backend": "vllm", "source": {"uri": "pvc://a/b"}, "gpus": {"sharing": "Shared"}})
    assert (need_of(vllm, None)[0].shared, need_of(vllm, None)[0].capped) == (True, True)
    assert need_of(spec_of(), None)[0].capped is False


# ---- rollouts ------------------------------------------------------------------------------------------------


def test_a_deployment_with_the_wanted_template_and_pods_made_from_it_is_no_rollout() -> None:
    assert asked(None, deployment(), builders.pod()).rollout is None


def test_another_template_is_a_rollout_that_has_not_begun() -> None:
    spec = spec_of(rollout={"strategy": "Surge"})
    assert asked(spec, deployment("t0"), builders.pod(template="t0")).rollout == Rollout(RolloutStrategy.SURGE)


@pytest.mark.parametrize(("surge", "how"), [(0, RolloutStrategy.IN_PLACE), (1, RolloutStrategy.SURGE)])
def test_a_rollout_goes_on_as_it_was_begun_until_the_last_old_pod_has_gone(surge: int, how: RolloutStrategy) -> None:
    pods = builders.pod("new"), builders.pod("old", template="t0", deleting=True)
    rollout = asked(None, deployment(surge=surge), *pods).rollout
    assert rollout == Rollout(RolloutStrategy.AUTO, how)


def test_while_no_template_is_known_there_is_no_rollout() -> None:
    assert asked(None, deployment("t0"), builders.pod(template="t0"), template_hash="").rollout is None


# ---- memory of the queue -------------------------------------------------------------------------------------


def test_what_is_stored_on_the_deployment_is_what_is_remembered() -> None:
    memory = remember(reason="Preempted", since=NOW, nodes=("a", "b"), preempted_by="models/x")
    stored = deployment(note=note_on_deployment(memory, 0.25))
    assert (remembered_of(SUBJECT, stored), share_of(stored)) == (memory, 0.25)


def test_before_there_is_a_deployment_the_age_is_that_of_the_timeline() -> None:
    assert remembered_of(SUBJECT, None) is None
    queued = replace(SUBJECT, status={"timeline": {"queuedAt": builders.ago(5)}})
    memory = remembered_of(queued, None)
    assert memory is not None
    assert (NOW - memory.queued_at).total_seconds() == 5  # type: ignore[operator]


@pytest.mark.parametrize("note", ["", "no JSON", "[]", '{"queuedAt": 7}', '{"share": "much", "nodes": 3}'])
def test_what_somebody_else_has_written_there_is_forgotten(note: str) -> None:
    assert remembered_of(SUBJECT, deployment(note=note)) in (None, Remembered())
    assert share_of(deployment(note=note)) is None


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0, True])
def test_a_share_that_is_none_is_not_believed(share: float) -> None:
    assert share_of(deployment(note={"share": share})) is None
