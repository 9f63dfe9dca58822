"""What the operator may do in the cluster, as a table: from the manifest that its tests run with."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from generation.marked import table

_WHY: Mapping[str, str] = {
    "models": "what you declare; Berth never writes a spec",
    "modelcaches": "what you declare; Berth never writes a spec",
    "models/status": "what is true of them",
    "modelcaches/status": "what is true of them",
    "deployments": "the servers of a Model",
    "services": "its address",
    "networkpolicies": "who may reach servers and downloads",
    "poddisruptionbudgets": "one server at a time is evicted",
    "jobs": "downloads",
    "persistentvolumeclaims": "the volumes of ModelCaches; Berth deletes none",
    "pods": "looked at; told to which nodes they may go; deleted when a stop is forced",
    "events": "what happened, for people",
    "configmaps": "one, by name: whether all Models are to stop before an uninstallation",
    "leases": "which of the operators leads",
    "nodes": "what they offer; never written",
    "persistentvolumes": "on which nodes a volume can be used",
    "gpunodes": "one for each node with GPUs",
    "gpunodes/status": "the report of the agents",
}
"""For people, by resource. One that is missing here has an empty cell."""
_WHERE: Mapping[str, str] = {
    "berth-operator": "every namespace, or the one that it serves",
    "berth-operator-lease": "its own namespace",
    "berth-operator-nodes": "the whole cluster",
}


def rights_part(manifest: Path) -> dict[str, tuple[str, str]]:
    """The generated part of the page about security, by its name."""
    rows = []
    for role in yaml.safe_load_all(manifest.read_text(encoding="utf-8")):
        name = role["metadata"]["name"]
        if role["kind"] != "ClusterRole" or name not in _WHERE:
            continue
        for rule in role["rules"]:
            for resource in rule["resources"]:
                group = rule["apiGroups"][0]
                shown = f"`{resource}`" + (f" of `{group}`" if group else "")
                rows.append((shown, ", ".join(rule["verbs"]), _WHERE[name], _WHY.get(resource, "")))
    return {"rights": ("deploy/rbac.yaml", table(("resource", "verbs", "where", "for what"), rows))}
