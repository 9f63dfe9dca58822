"""What a Model does with a decision: its Deployment first, then its Pods, and never more than was decided."""

import json
from dataclasses import replace
from typing import Any

import pytest

from berth.api.model import RolloutStrategy
from berth.planning import names
from berth.planning.capacity.decision import Decision, as_carried_out, has_to_be_carried_out
from berth.planning.capacity.plan import ModelCapacity, RolloutChoice
from berth.planning.capacity.step import Step, heard, let_all_go, mark, narrowed, next_step, tell
from berth.planning.capacity.world import Demand, Rollout
from berth.planning.nodes import HOSTNAME_LABEL
from berth.planning.plan import PodPatch
from berth.planning.pods import Pod, pod_from
from support import builders
from support.builders import NOW
from support.gpu_clusters import model, remember

SURGE, IN_PLACE = RolloutStrategy.SURGE, RolloutStrategy.IN_PLACE


def deployment(replicas: int = 1, surge: int = 0, note: str = '{"queuedAt": "2026-01-01T12:00:00Z"}') -> dict[str, Any]:
    strategy = {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1 - surge}}
    return builders.child(
        annotations={names.CAPACITY_ANNOTATION: note}, spec={"replicas": replicas, "strategy": strategy}
    )


def decision(demand: Demand, admitted: int = 1, **fields: Any) -> Decision:
    own = {key: fields.pop(key) for key in ("hostnames", "existing", "leaves_first", "told") if key in fields}
    remembered = fields.pop("remembered", remember())
    return Decision(demand, ModelCapacity(admitted, remembered, **fields), **own)


def step(demand: Demand, given: Decision | None, existing: dict[str, Any] | None = None) -> Step:
    return next_step(demand, given, existing, IN_PLACE)


# ---- the Deployment ------------------------------------------------------------------------------------------


def test_a_decision_about_something_else_is_not_heard() -> None:
    demand = model()
    assert heard(decision(demand), demand) is not None
    assert heard(decision(demand), replace(demand, priority=7)) is None
    assert heard(None, demand) is None


def test_before_anything_is_decided_there_is_nothing_to_make_a_deployment_of() -> None:
    assert step(model(), None).wait
    assert not step(model(), decision(model(), admitted=0)).wait


def test_without_a_decision_what_is_there_stays_and_is_never_more_than_wanted() -> None:
    found = step(model(replicas=2, wanted=3), None, deployment(2, surge=1))
    assert (found.replicas, found.new_template, found.strategy, found.wait) == (2, True, SURGE, False)
    assert found.note == '{"queuedAt": "2026-01-01T12:00:00Z"}'
    assert step(model(replicas=2, wanted=1), None, deployment(2)).replicas == 1
    assert step(model(replicas=2, wanted=0), None, deployment(2)).replicas == 0


def test_a_new_template_waits_for_the_decision_how_it_is_rolled_out() -> None:
    due = model(replicas=1, rollout=Rollout(RolloutStrategy.AUTO))
    assert not step(due, None, deployment()).new_template
    waits = decision(due, rollout=RolloutChoice(SURGE, "because", begin=False))
    assert not step(due, waits, deployment()).new_template
    begins = decision(due, rollout=RolloutChoice(SURGE, "because", begin=True))
    found = step(due, begins, deployment())
    assert (found.new_template, found.strategy) == (True, SURGE)


def test_a_rollout_that_has_begun_keeps_its_template() -> None:
    assert step(model(replicas=1, rollout=Rollout(SURGE, SURGE)), None, deployment(surge=1)).new_template


def test_a_stopped_model_may_have_any_template() -> None:
    stopped = model(wanted=0, replicas=1, rollout=Rollout(SURGE))
    assert step(stopped, None, deployment()).new_template


def test_what_is_decided_is_stored_in_the_same_write() -> None:
    memory = remember(nodes=("node-a",), unbound_since=NOW)
    found = step(model(), decision(model(), remembered=memory, share=0.25))
    assert (found.replicas, found.share) == (1, 0.25)
    assert json.loads(found.note) == {
        "queuedAt": "2026-01-01T12:00:00Z",
        "nodes": ["node-a"],
        "unboundSince": "2026-01-01T12:00:00Z",
        "share": 0.25,
    }


def test_servers_that_run_keep_their_share() -> None:
    demand, note = model(replicas=1), '{"share": 0.5}'
    assert step(demand, decision(demand, share=0.25), deployment(note=note)).share == 0.5
    assert step(demand, None, deployment(note=note)).share == 0.5


def test_a_decision_that_changes_nothing_has_not_to_be_carried_out() -> None:
    settled = model(replicas=1, remembered=remember())
    assert not has_to_be_carried_out(decision(settled))
    assert has_to_be_carried_out(decision(settled, admitted=0))
    assert has_to_be_carried_out(decision(settled, remembered=remember(reason="Preempted")))
    stopped = replace(settled, wanted=0, replicas=0)
    assert not has_to_be_carried_out(decision(stopped, admitted=0))


def test_what_is_under_way_counts_as_done() -> None:
    due = model(replicas=1, rollout=Rollout(SURGE))
    done = as_carried_out(decision(due, admitted=0, rollout=RolloutChoice(IN_PLACE, "because", begin=True)))
    assert (done.replicas, done.rollout, done.remembered) == (0, Rollout(SURGE, IN_PLACE), remember())


# ---- Pods are told -------------------------------------------------------------------------------------------

STORED = model(replicas=1, remembered=remember(nodes=("node-a", "node-b")))


def held(name: str = "p", template: str = "t1", created: float = 60, **spec: Any) -> Pod:
    pod = builders.pod(name, template=template, created=created)
    return pod_from({**pod, "spec": {"schedulingGates": [{"name": names.CAPACITY_GATE}], **spec}})


def told(given: Decision, *pods: Pod) -> tuple[PodPatch, ...]:
    return tell(given, "t1", pods, NOW)


def nodes_decided(demand: Demand = STORED, **fields: Any) -> Decision:
    given = {"nodes": ("node-a", "node-b"), "hostnames": ("host-b", "host-a"), "remembered": STORED.remembered}
    return decision(demand, **(given | fields))


def test_a_pod_is_told_the_host_names_of_its_nodes_and_let_go_in_one_write() -> None:
    (patch,) = told(nodes_decided(), held())
    requirement = {"key": HOSTNAME_LABEL, "operator": "In", "values": ["host-a", "host-b"]}
    assert patch.body["spec"]["schedulingGates"] is None
    assert patch.body["spec"]["affinity"] == narrowed({}, [requirement])
    assert json.loads(patch.body["metadata"]["annotations"][names.CAPACITY_ANNOTATION]) == {
        "nodes": ["node-a", "node-b"],
        "at": "2026-01-01T12:00:00Z",
        "memoryMiB": 24576,
    }
    assert (patch.name, patch.uid, patch.resource_version) == ("p", "pod-p", "1")


def test_nobody_is_told_nodes_that_are_not_stored_yet() -> None:
    assert told(nodes_decided(replace(STORED, remembered=None)), held()) == ()
    assert told(nodes_decided(replace(STORED, remembered=remember())), held()) == ()
    assert told(nodes_decided(replace(STORED, remembered=remember(nodes=("node-c",)))), held()) == ()


def test_one_pod_is_told_with_each_decision_the_oldest_first() -> None:
    pods = held("young", created=5), held("old", created=50)
    assert [patch.name for patch in told(nodes_decided(), *pods)] == ["old"]
    assert told(nodes_decided(told=True), *pods) == ()


def test_pods_of_another_template_and_those_that_are_not_held_are_not_told() -> None:
    assert told(nodes_decided(), held(template="t0"), pod_from(builders.pod("free"))) == ()


def test_gates_of_others_stay() -> None:
    gates = [{"name": names.CAPACITY_GATE}, {"name": "kueue.x-k8s.io/admission"}]
    (patch,) = told(nodes_decided(), held(schedulingGates=gates))
    assert patch.body["spec"]["schedulingGates"] == [{"name": "kueue.x-k8s.io/admission"}]


def test_one_that_asks_for_a_new_node_may_go_to_none_that_exists() -> None:
    memory = remember(beyond=NOW)
    asks = model(replicas=1, remembered=memory)
    given = decision(asks, remembered=memory, new_nodes_only=True, existing=("host-b", "host-a"))
    (patch,) = told(given, held())
    terms = patch.body["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms == {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": HOSTNAME_LABEL, "operator": "NotIn", "values": ["host-a", "host-b"]}]}
        ]
    }
    assert json.loads(patch.body["metadata"]["annotations"][names.CAPACITY_ANNOTATION])["beyond"] is True
    (patch,) = told(replace(given, existing=()), held())  # a cluster without any node
    assert "affinity" not in patch.body["spec"]


def test_where_nobody_plans_any_more_every_pod_is_let_go_as_it_is() -> None:
    (patch,) = let_all_go([held(), pod_from(builders.pod("free"))])
    assert patch.body == {"spec": {"schedulingGates": None}}


def test_pods_that_make_way_are_marked_once() -> None:
    going = decision(STORED, leaves_first=frozenset({"pod-a", "pod-b"}))
    pods = [pod_from(builders.pod(name)) for name in ("a", "c")]
    marked = replace(pod_from(builders.pod("b")), leaves_first=True)
    assert [patch.name for patch in mark(going, [*pods, marked])] == ["a"]
    assert mark(None, pods) == ()


# ---- affinities ----------------------------------------------------------------------------------------------

HERE = {"key": HOSTNAME_LABEL, "operator": "In", "values": ["host-a"]}
ZONE = {"key": "zone", "operator": "In", "values": ["a"]}


@pytest.mark.parametrize(
    ("terms", "narrower"),
    [
        (None, [{"matchExpressions": [HERE]}]),
        ([{"matchExpressions": [ZONE]}], [{"matchExpressions": [ZONE, HERE]}]),
        ([{"matchFields": [ZONE]}, {}], [{"matchFields": [ZONE], "matchExpressions": [HERE]}, {}]),
    ],
)
def test_every_term_of_an_affinity_is_narrowed(terms: object, narrower: object) -> None:
    required = {} if terms is None else {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    affinity = {"podAffinity": {"x": 1}, "nodeAffinity": {**required, "preferred": 1}}
    found = narrowed(affinity, [HERE])
    assert found["podAffinity"] == {"x": 1}
    assert found["nodeAffinity"]["preferred"] == 1
    assert found["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] == narrower
