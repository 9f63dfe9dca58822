"""What Argo CD is told of Berth's kinds: entries for its ConfigMap argocd-cm, from the scripts in gitops/argocd."""

from pathlib import Path
from typing import Any

import yaml

from berth.api.base import GROUP

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path("gitops/argocd/resource_customizations") / GROUP
CONFIG_MAP = "gitops/argocd/argocd-cm.yaml"
_WORDS = ".status?.conditions[]?.message"
_MOVING: dict[str, dict[str, list[str]]] = {
    "Model": {
        "jsonPointers": ["/status/provisioning", "/status/queue", "/status/load", "/status/gpu/measuredMiB"],
        "jqPathExpressions": [_WORDS],
    },
    "ModelCache": {
        "jsonPointers": ["/status/artifacts", "/status/discovery", "/status/used", "/status/usedBytes"],
        "jqPathExpressions": [_WORDS],
    },
}
"""Figures that move all the time. Argo CD need not look at an application again when nothing but them has changed."""


class _Dumper(yaml.SafeDumper):
    """Texts of several lines are written as they are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def config_map(note: str, root: Path = ROOT) -> str:
    """The ConfigMap with `note` on top, to be merged into the one that Argo CD has."""
    data: dict[str, str] = {}
    for folder in sorted(path for path in (root / SCRIPTS).iterdir() if path.is_dir()):
        kind = folder.name
        data[f"resource.customizations.health.{GROUP}_{kind}"] = (folder / "health.lua").read_text()
        if (folder / "actions").exists():
            data[f"resource.customizations.actions.{GROUP}_{kind}"] = _dump(_actions(folder / "actions"))
        if kind in _MOVING:
            data[f"resource.customizations.ignoreResourceUpdates.{GROUP}_{kind}"] = _dump(_MOVING[kind])
    metadata = {
        "name": "argocd-cm",
        "namespace": "argocd",
        "labels": {"app.kubernetes.io/name": "argocd-cm", "app.kubernetes.io/part-of": "argocd"},
    }
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    return f"# {note}\n# kubectl -n argocd patch configmap argocd-cm --patch-file {CONFIG_MAP}\n---\n{_dump(document)}"


def _actions(folder: Path) -> dict[str, Any]:
    definitions = [
        {"name": script.parent.name, "action.lua": script.read_text()} for script in sorted(folder.glob("*/action.lua"))
    ]
    return {"discovery.lua": (folder / "discovery.lua").read_text(), "definitions": definitions}


def _dump(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
