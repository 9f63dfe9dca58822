"""What one pass wants of a Model: its replicas, its Pod template, and the children that follow."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from berth.api.model import DesiredState, ModelSpec, RolloutStrategy
from berth.planning import names
from berth.planning.canonical import canonical_json
from berth.planning.capacity.asking import demand_of, need_of, share_of
from berth.planning.capacity.decision import Decision
from berth.planning.capacity.step import Step, heard, next_step
from berth.planning.capacity.world import Demand, Need
from berth.planning.children import (
    ModelIdentity,
    render_deployment,
    render_disruption_budget,
    render_network_policy,
    render_service,
    template_hash,
)
from berth.planning.closing import Door, door
from berth.planning.drain_pod import has_sidecar
from berth.planning.excluded_nodes import avoid
from berth.planning.forced_stop import is_forced
from berth.planning.memory_estimate import Estimate
from berth.planning.pod_template import render_pod_template, template_inputs
from berth.planning.policy import Policy
from berth.planning.provisioning import Provisioning, Way
from berth.planning.reasons import Reason
from berth.planning.recovery import Steps, steps
from berth.planning.recovery_memory import Memory
from berth.planning.restarting import mark_restart
from berth.planning.rollout import (
    Template,
    allowed_replicas,
    annotation,
    choose_strategy,
    choose_template,
    previous_template,
    template_mark,
)
from berth.planning.starting import Start, current_start, remembered
from berth.planning.uninstalling import is_uninstalled
from berth.planning.weights import Stored
from berth.planning.world import Manifest, ModelWorld, Subject

_SOMEWHERE = Stored(cache="c", claim="c", path="p", file=names.LINKED_FILE, one_node=True)
"""Stands for where the weights will be, to see whether the rest of the spec can be carried out."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What one pass wants: the children and the numbers behind them."""

    spec: ModelSpec
    wanted: int
    stop_reason: Reason | None
    provisioning: Provisioning
    upgrade_available: bool
    template_hash: str
    """Of the template that servers have or are to have; empty when there is none yet."""
    held: bool
    """Whether old Pods have to go first."""
    children: tuple[Manifest, ...]
    waits_with_deployment: bool
    """Whether a Deployment that is there is left alone: there is nothing to make one of, or it is about to stop."""
    door: Door
    forced: bool
    """Whether servers end without being drained."""
    start: Start
    """The start that counts now."""
    recovery: Steps
    """What failures ask for."""
    demand: Demand | None = None
    """What it asks of the capacity planner; None when it needs no permission for its replicas."""
    decision: Decision | None = None
    """What was decided about just that."""
    need: Need | None = None
    """What one replica takes of GPUs; None for a Model without."""
    estimate: Estimate | None = None
    """The GPU memory that its figures call for, where it is not declared."""


def intend(
    world: ModelWorld,
    spec: ModelSpec,
    provisioning: Provisioning,
    memory: Memory,
    *,
    given_up: bool,
    policy: Policy,
    now: datetime,
) -> Intent:
    """What is wanted now; `memory` is of failures. `given_up` stops all servers. Raises InvalidSpecError."""
    subject = world.subject
    child = world.child("Deployment")
    deployment = child.manifest() if child else None
    provisioning = keep_what_serves(provisioning, world, spec, deployment)
    template, inputs = _template(subject, spec, provisioning, deployment, policy, share_of(deployment))
    start = current_start(
        remembered(subject.status),
        subject.annotations,
        on_demand=spec.state is DesiredState.ON_DEMAND,
        serves=bool(deployment and deployment["spec"].get("replicas")),
        now=now,
    )
    asked_for = start.awake or world.routed
    wanted, stop_reason = wanted_replicas(spec, asked_for=asked_for, uninstalling=is_uninstalled(world))
    digest = template_hash(template.body) if template else ""
    identity = ModelIdentity(subject.namespace, subject.name, subject.uid)
    downloads = provisioning.way is Way.EPHEMERAL
    recovery = steps(memory, world, digest, template_mark(deployment), policy, now) if template else Steps()
    need, guess = need_of(spec, provisioning.figures) if spec.gpus.count else (None, None)
    asked = _Asked()
    strategy, _ = choose_strategy(spec)
    if need is not None and policy.render.gated:
        runs = 0 if given_up or stop_reason else wanted
        if recovery.most is not None:
            runs = min(runs, recovery.most)
        asked = _ask(world, spec, need, provisioning, template, digest, deployment, runs, recovery.excluded, strategy)
    if asked.step is not None:
        replicas, strategy = asked.step.replicas, asked.step.strategy
    elif template:
        replicas = allowed_replicas(wanted, strategy, digest, world.pods, deployment)
    else:
        replicas = wanted
    # Only once the status says so: the Pods are the evidence, and a crash in between must not lose both.
    number = 0 if given_up or _waits_for_nothing(provisioning, world, deployment) else replicas
    forced = is_forced(subject.annotations, stops=given_up or stop_reason is not None)
    entrance = door(number, world, deployment, now, forced=forced)
    if recovery.most is not None:
        number = min(number, recovery.most)  # a place that stays empty for a while: the Service needs no closing
    children = [
        render_service(identity, spec, closed_since=entrance.closed_since),
        render_network_policy(
            identity,
            spec,
            policy.render,
            downloads=downloads,
            drained=template is not None and has_sidecar(template.body),
        ),
        *([render_disruption_budget(identity, spec)] if wanted > 1 else []),
    ]
    makes = template is not None and entrance.wait is None and not (asked.step is not None and asked.step.wait)
    if template is not None and makes:
        body, inputs, weights = _body(world, spec, provisioning, deployment, policy, template, inputs, asked.step)
        children.append(
            render_deployment(
                identity,
                spec,
                body,
                replicas=number,
                strategy=strategy,
                inputs=inputs,
                weights=weights,
                capacity=asked.step.note if asked.step is not None else "",
                avoided=recovery.excluded,
            )
        )
    return Intent(
        spec,
        wanted,
        stop_reason,
        provisioning,
        bool(template and template.upgrade_available),
        digest,
        held=asked.step is None and replicas < wanted,
        children=tuple(children),
        waits_with_deployment=not makes,
        door=entrance,
        forced=forced,
        demand=asked.demand,
        decision=asked.decision,
        need=need,
        estimate=guess,
        recovery=recovery,
        start=start,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a Model asks of the capacity planner, and what came of it; nothing for one that needs no permission."""

    step: Step | None = None
    demand: Demand | None = None
    decision: Decision | None = None


def _ask(
    world: ModelWorld,
    spec: ModelSpec,
    need: Need,
    provisioning: Provisioning,
    template: Template | None,
    digest: str,
    deployment: Mapping[str, Any] | None,
    runs: int,
    avoided: Sequence[str],
    strategy: RolloutStrategy,
) -> _Asked:
    stored = provisioning.stored
    demand = demand_of(
        world.subject,
        spec,
        wanted=runs,
        provisioned=provisioning.there,
        template=avoid(template.body, avoided) if template else None,
        template_hash=digest,
        need=need,
        cache=stored.cache if stored and stored.one_node else "",
        deployment=deployment,
        pods=world.pods,
    )
    decision = heard(world.decision, demand)
    return _Asked(next_step(demand, decision, deployment, strategy), demand, decision)


def _body(
    world: ModelWorld,
    spec: ModelSpec,
    provisioning: Provisioning,
    deployment: Mapping[str, Any] | None,
    policy: Policy,
    template: Template,
    inputs: str,
    step: Step | None,
) -> tuple[Manifest, str, str]:
    """The Pod template that the Deployment may have now, what it was rendered from, and where its weights are."""
    weights = _weights_note(spec, provisioning, deployment)
    if step is None:
        return template.body, inputs, weights
    before = None if step.new_template else previous_template(deployment)
    if before is not None:
        inputs = annotation(deployment, names.TEMPLATE_INPUTS_ANNOTATION)
        return before, inputs, annotation(deployment, names.WEIGHTS_ANNOTATION)
    if step.share != share_of(deployment):
        other, inputs = _template(world.subject, spec, provisioning, deployment, policy, step.share)
        template = other or template
    return template.body, inputs, weights


def _template(
    subject: Subject,
    spec: ModelSpec,
    provisioning: Provisioning,
    deployment: Mapping[str, Any] | None,
    policy: Policy,
    share: float | None,
) -> tuple[Template | None, str]:
    """The template and the hash of what it was rendered from; that of the last generation while weights are missing."""
    stored = provisioning.stored
    if provisioning.there:
        fresh = render_pod_template(subject.name, subject.namespace, spec, policy.render, stored, share)
        inputs = template_inputs(spec, stored, share)
        fresh, inputs = mark_restart(fresh, inputs, subject.annotations, deployment)
        return choose_template(fresh, inputs, deployment, spec.rollout.on_upgrade), inputs
    render_pod_template(subject.name, subject.namespace, spec, policy.render, _SOMEWHERE)  # mistakes are told at once
    previous = previous_template(deployment)
    if previous is None:
        return None, ""
    return Template(previous, False), annotation(deployment, names.TEMPLATE_INPUTS_ANNOTATION)


def wanted_replicas(spec: ModelSpec, *, asked_for: bool, uninstalling: bool = False) -> tuple[int, Reason | None]:
    """Replicas that should serve, and the reason for none: the Model's own first, which outlasts an uninstallation.

    `asked_for` is what an OnDemand Model waits for.
    """
    if spec.state is DesiredState.STOPPED:
        return 0, Reason.STOPPED_BY_USER
    if spec.state is DesiredState.ON_DEMAND and not asked_for:
        return 0, Reason.IDLE
    if spec.replicas == 0:
        return 0, Reason.SCALED_TO_ZERO
    return (0, Reason.OPERATOR_UNINSTALLING) if uninstalling else (spec.replicas, None)


# ---- servers that run keep the weights they have ----------------------------------------------------------------


def keep_what_serves(
    provisioning: Provisioning, world: ModelWorld, spec: ModelSpec, deployment: Mapping[str, Any] | None
) -> Provisioning:
    """The provisioning, or the one that running servers have, as long as nobody changed the spec.

    A ModelCache that appears, is deleted or has lost its status must not restart servers that answer. Other weights
    of the same source, once they are there, do.
    """
    before = _noted_weights(deployment)
    serving = any(pod.ready and not pod.deleting for pod in world.pods)
    if before is None or before.get("spec") != template_inputs(spec) or not serving:
        return provisioning
    if provisioning.way is Way.CACHE and provisioning.stored is not None and before.get("stored"):
        return provisioning
    shown = world.subject.status.get("provisioning")
    if not before.get("stored"):
        return provisioning if provisioning.way is Way.EPHEMERAL else Provisioning(Way.EPHEMERAL, shown=shown)
    try:
        stored = Stored(**before["stored"])
        return Provisioning(Way.CACHE, stored=stored, shown=shown, figures=provisioning.figures)
    except TypeError:
        return provisioning  # noted by a version of Berth that knew other fields


def _waits_for_nothing(provisioning: Provisioning, world: ModelWorld, deployment: Mapping[str, Any] | None) -> bool:
    """Whether the Pods download by themselves what a ModelCache is about to bring, and none of them answers."""
    noted = _noted_weights(deployment)
    own_downloads = noted is not None and not noted.get("stored")
    return not provisioning.there and own_downloads and not any(pod.ready for pod in world.pods)


def _noted_weights(deployment: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    try:
        noted = json.loads(annotation(deployment, names.WEIGHTS_ANNOTATION))
    except ValueError:
        return None
    return noted if isinstance(noted, dict) else None


def _weights_note(spec: ModelSpec, provisioning: Provisioning, deployment: Mapping[str, Any] | None) -> str:
    if not provisioning.there:
        return annotation(deployment, names.WEIGHTS_ANNOTATION)
    if provisioning.way is Way.MOUNTED:
        return ""
    stored = (
        {key: value for key, value in asdict(provisioning.stored).items() if value} if provisioning.stored else None
    )
    return canonical_json({"spec": template_inputs(spec), "stored": stored})
