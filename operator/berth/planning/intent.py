"""What one pass wants of a Model: its replicas, its Pod template, and the children that follow."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from berth.api.model import DesiredState, ModelSpec
from berth.planning import names
from berth.planning.canonical import canonical_json
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
from berth.planning.forced_stop import is_forced
from berth.planning.pod_template import render_pod_template, template_inputs
from berth.planning.policy import Policy
from berth.planning.provisioning import Provisioning, Way, provision
from berth.planning.reasons import Reason
from berth.planning.rollout import Template, allowed_replicas, choose_strategy, choose_template, previous_template
from berth.planning.uninstalling import is_uninstalled
from berth.planning.weights import Stored
from berth.planning.world import Manifest, ModelWorld, Subject

WAKE_ANNOTATION = "berth.dev/wake"
"""Any value wakes an OnDemand Model."""
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


def intend(world: ModelWorld, spec: ModelSpec, *, given_up: bool, policy: Policy, now: datetime) -> Intent:
    """What is wanted now. `given_up` stops all servers. Raises InvalidSpecError."""
    subject = world.subject
    child = world.child("Deployment")
    deployment = child.manifest() if child else None
    provisioning = keep_what_serves(provision(world, spec), world, spec, deployment)
    template, inputs = _template(subject, spec, provisioning, deployment, policy)
    wanted, stop_reason = wanted_replicas(spec, subject.annotations, uninstalling=is_uninstalled(world))
    strategy, _ = choose_strategy(spec)
    digest = template_hash(template.body) if template else ""
    replicas = allowed_replicas(wanted, strategy, digest, world.pods, deployment) if template else wanted
    identity = ModelIdentity(subject.namespace, subject.name, subject.uid)
    downloads = provisioning.way is Way.EPHEMERAL
    # Only once the status says so: the Pods are the evidence, and a crash in between must not lose both.
    number = 0 if given_up or _waits_for_nothing(provisioning, world, deployment) else replicas
    forced = is_forced(subject.annotations, stops=given_up or stop_reason is not None)
    entrance = door(number, world, deployment, now, forced=forced)
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
    if template is not None and entrance.wait is None:
        weights = _weights_note(spec, provisioning, deployment)
        children.append(
            render_deployment(
                identity, spec, template.body, replicas=number, strategy=strategy, inputs=inputs, weights=weights
            )
        )
    return Intent(
        spec,
        wanted,
        stop_reason,
        provisioning,
        bool(template and template.upgrade_available),
        digest,
        held=replicas < wanted,
        children=tuple(children),
        waits_with_deployment=template is None or entrance.wait is not None,
        door=entrance,
        forced=forced,
    )


def _template(
    subject: Subject,
    spec: ModelSpec,
    provisioning: Provisioning,
    deployment: Mapping[str, Any] | None,
    policy: Policy,
) -> tuple[Template | None, str]:
    """The template and the hash of what it was rendered from; that of the last generation while weights are missing."""
    stored = provisioning.stored
    if provisioning.there:
        fresh = render_pod_template(subject.name, subject.namespace, spec, policy.render, stored)
        inputs = template_inputs(spec, stored)
        return choose_template(fresh, inputs, deployment, spec.rollout.on_upgrade), inputs
    render_pod_template(subject.name, subject.namespace, spec, policy.render, _SOMEWHERE)  # mistakes are told at once
    previous = previous_template(deployment)
    if previous is None:
        return None, ""
    return Template(previous, False), _annotation(deployment, names.TEMPLATE_INPUTS_ANNOTATION)


def wanted_replicas(
    spec: ModelSpec, annotations: Mapping[str, str], *, uninstalling: bool = False
) -> tuple[int, Reason | None]:
    """Replicas that should serve, and the reason for none: the Model's own first, which outlasts an uninstallation."""
    if spec.state is DesiredState.STOPPED:
        return 0, Reason.STOPPED_BY_USER
    if spec.state is DesiredState.ON_DEMAND and WAKE_ANNOTATION not in annotations:
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
        return Provisioning(Way.CACHE, stored=Stored(**before["stored"]), shown=shown)
    except TypeError:
        return provisioning  # noted by a version of Berth that knew other fields


def _waits_for_nothing(provisioning: Provisioning, world: ModelWorld, deployment: Mapping[str, Any] | None) -> bool:
    """Whether the Pods download by themselves what a ModelCache is about to bring, and none of them answers."""
    noted = _noted_weights(deployment)
    own_downloads = noted is not None and not noted.get("stored")
    return not provisioning.there and own_downloads and not any(pod.ready for pod in world.pods)


def _noted_weights(deployment: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    try:
        noted = json.loads(_annotation(deployment, names.WEIGHTS_ANNOTATION))
    except ValueError:
        return None
    return noted if isinstance(noted, dict) else None


def _weights_note(spec: ModelSpec, provisioning: Provisioning, deployment: Mapping[str, Any] | None) -> str:
    if not provisioning.there:
        return _annotation(deployment, names.WEIGHTS_ANNOTATION)
    if provisioning.way is Way.MOUNTED:
        return ""
    stored = (
        {key: value for key, value in asdict(provisioning.stored).items() if value} if provisioning.stored else None
    )
    return canonical_json({"spec": template_inputs(spec), "stored": stored})


def _annotation(deployment: Mapping[str, Any] | None, name: str) -> str:
    annotations = ((deployment or {}).get("metadata") or {}).get("annotations") or {}
    value: str = annotations.get(name, "")
    return value
