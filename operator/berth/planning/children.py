"""The objects that a Model consists of in the cluster: Deployment, Service, NetworkPolicy, PodDisruptionBudget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from berth.api.base import API_VERSION
from berth.api.model import ModelSpec, RolloutStrategy
from berth.planning import names
from berth.planning.canonical import canonical_json, content_hash, duration
from berth.planning.drain_pod import drain_port, has_sidecar
from berth.planning.excluded_nodes import avoid
from berth.planning.pod_template import template_inputs
from berth.planning.render_settings import Peer, RenderSettings

Manifest = dict[str, Any]

PROGRESS_MARGIN_SECONDS = 600
"""For pulling the image: it is part of a Deployment's progress but not of health.startupTimeout."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which Model the children belong to."""

    namespace: str
    name: str
    uid: str


def template_hash(pod_template: Manifest) -> str:
    """The hash that marks the Pods of this template."""
    return content_hash(pod_template)


def with_applied_hash(manifest: Manifest) -> Manifest:
    """The manifest with the hash of itself as annotation. The argument is left as it is."""
    metadata = manifest["metadata"]
    annotations = dict(metadata.get("annotations") or ())
    annotations.pop(names.APPLIED_ANNOTATION, None)
    bare = {**manifest, "metadata": {**metadata, "annotations": annotations}}
    annotations = {**annotations, names.APPLIED_ANNOTATION: content_hash(bare)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def render_deployment(
    identity: ModelIdentity,
    spec: ModelSpec,
    pod_template: Manifest,
    *,
    replicas: int,
    strategy: RolloutStrategy,
    inputs: str | None = None,
    weights: str = "",
    capacity: str = "",
    avoided: Sequence[str] = (),
) -> Manifest:
    """The Deployment of the servers.

    `pod_template` may be one that was rendered before; `inputs` is the hash of what it was rendered from, that of
    the present spec when omitted. `weights` notes where its weights are, `capacity` what the capacity planner remembers
    of the Model. `strategy` is decided: not Auto. `avoided` are hosts that its Pods do not go to; they are no part of
    the template's hash.
    """
    digest = template_hash(pod_template)
    metadata = pod_template.get("metadata") or {}
    labelled = {
        **avoid(pod_template, avoided),
        "metadata": {**metadata, "labels": {**metadata["labels"], names.TEMPLATE_HASH_LABEL: digest}},
    }
    warm = math.ceil(duration("health.warmTime", spec.health.warm_time))
    startup = math.ceil(duration("health.startupTimeout", spec.health.startup_timeout))
    surge = strategy is RolloutStrategy.SURGE
    body = {
        "replicas": replicas,
        "selector": {"matchLabels": names.server_selector(identity.name)},
        "template": labelled,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1 if surge else 0, "maxUnavailable": 0 if surge else 1},
        },
        "minReadySeconds": warm,
        "progressDeadlineSeconds": startup + warm + PROGRESS_MARGIN_SECONDS,
        "revisionHistoryLimit": 2,
    }
    annotations = {
        names.TEMPLATE_INPUTS_ANNOTATION: template_inputs(spec) if inputs is None else inputs,
        names.POD_TEMPLATE_ANNOTATION: canonical_json(pod_template),
    }
    if avoided:
        annotations[names.EXCLUDED_NODES_ANNOTATION] = ",".join(avoided)
    if weights:
        annotations[names.WEIGHTS_ANNOTATION] = weights
    if capacity:
        annotations[names.CAPACITY_ANNOTATION] = capacity
    return _child(identity, spec, "apps/v1", "Deployment", body, annotations)


def render_service(identity: ModelIdentity, spec: ModelSpec, *, closed_since: str = "") -> Manifest:
    """The Service of the Model. With `closed_since` it sends nothing anywhere: its servers are about to stop."""
    selector = names.server_selector(identity.name)
    annotations = {}
    if closed_since:
        selector = {**selector, names.CLOSED_LABEL: "true"}
        annotations[names.CLOSED_SINCE_ANNOTATION] = closed_since
    port = {
        "name": names.SERVER_PORT_NAME,
        "port": names.SERVICE_PORT,
        "targetPort": names.SERVER_PORT_NAME,
        "protocol": "TCP",
    }
    body = {"type": "ClusterIP", "selector": selector, "ports": [port]}
    return _child(identity, spec, "v1", "Service", body, annotations)


def render_network_policy(
    identity: ModelIdentity,
    spec: ModelSpec,
    settings: RenderSettings,
    *,
    downloads: bool = False,
    drained: bool = False,
) -> Manifest:
    """Who may reach the servers: whom the Model names or else its namespace, and always Berth and the scraper.

    `downloads` says that the Pods download their weights themselves: Berth and the scraper may ask how far they are.
    `drained` says that they have a drain sidecar, which takes orders from Berth.
    """
    allowed = spec.network.allow_from if spec.network else None
    peers = [{"podSelector": {}}] if allowed is None else [peer.to_json() for peer in allowed]
    watchers = watching_peers(settings)
    ingress: list[Manifest] = [{"from": peers + watchers, "ports": [_port(names.SERVER_PORT_NAME)]}]
    if downloads:
        ingress.append({"from": watchers, "ports": [_port(names.PROGRESS_PORT)]})
    if drained:
        port = drain_port(spec.custom.port if spec.custom else None)
        ingress.append({"from": [_peer(settings.operator)], "ports": [_port(port)]})
    body = {
        "podSelector": {"matchLabels": names.server_selector(identity.name)},
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    }
    return _child(identity, spec, "networking.k8s.io/v1", "NetworkPolicy", body)


def render_disruption_budget(identity: ModelIdentity, spec: ModelSpec) -> Manifest:
    """One server at a time may be evicted, and sick ones always. Only of use with several replicas."""
    body = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": names.server_selector(identity.name)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return _child(identity, spec, "policy/v1", "PodDisruptionBudget", body)


def desired_children(
    identity: ModelIdentity,
    spec: ModelSpec,
    settings: RenderSettings,
    pod_template: Manifest,
    *,
    replicas: int,
    strategy: RolloutStrategy,
    inputs: str | None = None,
    downloads: bool = False,
) -> list[Manifest]:
    """Everything that a Model consists of, in the order in which it is best made."""
    children = [
        render_network_policy(identity, spec, settings, downloads=downloads, drained=has_sidecar(pod_template)),
        render_service(identity, spec),
        render_deployment(identity, spec, pod_template, replicas=replicas, strategy=strategy, inputs=inputs),
    ]
    if spec.replicas > 1:
        children.append(render_disruption_budget(identity, spec))
    return children


def watching_peers(settings: RenderSettings) -> list[Manifest]:
    """Who may always look at Pods of ours: the operator, and the scraper of metrics where there is one."""
    return [_peer(peer) for peer in (settings.operator, settings.scraper) if peer is not None]


def _port(port: str | int) -> Manifest:
    return {"port": port, "protocol": "TCP"}


def _peer(peer: Peer) -> Manifest:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": peer.namespace}},
        "podSelector": {"matchLabels": dict(peer.labels)},
    }


def _child(
    identity: ModelIdentity,
    spec: ModelSpec,
    api_version: str,
    kind: str,
    body: Manifest,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    owner = {
        "apiVersion": API_VERSION,
        "kind": "Model",
        "name": identity.name,
        "uid": identity.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    metadata: Manifest = {
        "name": identity.name,
        "namespace": identity.namespace,
        "labels": names.child_labels(identity.name, spec.backend),
        "ownerReferences": [owner],
    }
    if annotations:
        metadata["annotations"] = annotations
    return with_applied_hash({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": body})
