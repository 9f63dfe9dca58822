"""The person's podTemplate, merged last into the rendered one.

It works as a strategic merge patch: maps merge, null removes, lists merge by the keys of server-side apply, and
`$patch: delete` takes an element out. What a person adds to placement adds to Berth's: tolerations are appended,
required node affinity has to hold besides.
"""

from collections.abc import Callable, Mapping
from typing import Any

from berth.planning import names
from berth.planning.canonical import canonical_pod_template
from berth.planning.equality import element_key, merge_keys
from berth.planning.errors import InvalidSpecError
from berth.planning.pod_template_guard import ROOT, check_safety, check_shapes

Json = dict[str, Any]

_ACTS = frozenset({"startupProbe", "readinessProbe", "livenessProbe", "preStop", "postStart"})
_HANDLERS = frozenset({"exec", "httpGet", "tcpSocket", "grpc", "sleep"})
_ENV_VALUES = frozenset({"value", "valueFrom"})


def merge_pod_template(rendered: Json, partial: Json, *, allow_unsafe: bool) -> Json:
    """The rendered template with the person's wishes, in canonical form; `rendered` is changed, `partial` is not.

    Raises InvalidSpecError with the path of what is refused.
    """
    check_shapes(partial)
    if not allow_unsafe:
        check_safety(partial)
    selector = {key: rendered["metadata"]["labels"][key] for key in names.server_selector("")}
    merged = merge_partial(rendered, partial)
    _check_result(merged, selector)
    return canonical_pod_template(merged, ROOT)


def merge_partial(rendered: Json, partial: Json) -> Json:
    """The template with a partial one merged over it, whatever it says; `rendered` is changed, `partial` is not."""
    said = {field: _copy(value) for field, value in partial.items() if value is not None}
    return _merge_maps(rendered, said, "", ROOT)


def _check_result(merged: Json, selector: Mapping[str, str]) -> None:
    """What Berth needs has to survive: the labels that find the Pods, and the server with its port."""
    labels = (merged.get("metadata") or {}).get("labels") or {}
    for key, value in selector.items():
        if labels.get(key) != value:
            raise InvalidSpecError(f"{ROOT}.metadata.labels[{key}]", "finds the Model's Pods and may not change")
    containers = (merged.get("spec") or {}).get("containers") or []
    server = next((one for one in containers if one["name"] == names.SERVER_CONTAINER), None)
    where = f"{ROOT}.spec.containers[name={names.SERVER_CONTAINER}]"
    if server is None:
        raise InvalidSpecError(where, "is the inference server and may not be removed")
    if not any(port.get("name") == names.SERVER_PORT_NAME for port in server.get("ports") or ()):
        raise InvalidSpecError(f"{where}.ports", f"the port named {names.SERVER_PORT_NAME} may not be removed")


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _merge_maps(base: Json, patch: Json, parent: str, path: str) -> Json:
    for field in _displaced(base, patch, parent):
        del base[field]
    for field, value in patch.items():
        here = f"{path}.{field}"
        if value is None:
            base.pop(field, None)
        elif isinstance(value, dict):
            found = base.get(field)
            base[field] = _merge_maps(found if isinstance(found, dict) else {}, value, field, here)
        elif isinstance(value, list):
            base[field] = _merge_lists(base.get(field) or [], value, parent, field, here)
        else:
            base[field] = value
    return base


def _displaced(base: Mapping[str, Any], patch: Mapping[str, Any], parent: str) -> set[str]:
    """Fields that give way because only one of their kind may be set: a volume's source, a probe's or hook's action."""
    if parent == "volumes":
        alternatives = (base.keys() | patch.keys()) - {"name"}
    elif parent == "env":
        alternatives = set(_ENV_VALUES)
    elif parent in _ACTS:
        alternatives = set(_HANDLERS)
    else:
        return set()
    chosen = {field for field in alternatives if patch.get(field) is not None}
    return (alternatives & base.keys()) - chosen if chosen else set()


def _merge_lists(base: list[Any], patch: list[Any], parent: str, field: str, path: str) -> list[Any]:
    special = _SPECIAL_LISTS.get(field)
    if special is not None:
        return special(base, patch)
    keys = merge_keys(parent, field)
    if keys is None:
        return patch
    merged = {element_key(element, keys): element for element in base}
    for index, element in enumerate(patch):
        key = element_key(element, keys)
        if key is None:
            missing = next(name for name in keys if name not in element)
            raise InvalidSpecError(f"{path}[{index}].{missing}", "is missing: it says which element is meant")
        if element.pop("$patch", None) == "delete":
            merged.pop(key, None)
        else:
            merged[key] = _merge_maps(merged.get(key, {}), element, field, f"{path}[{index}]")
    return list(merged.values())


def _append(base: list[Any], patch: list[Any]) -> list[Any]:
    """Both, each once."""
    return [*base, *(element for element in patch if element not in base)]


def _both_terms(base: list[Any], patch: list[Any]) -> list[Any]:
    """Terms of required node affinity are alternatives, so each of Berth's is joined with each of the person's."""
    if not base or not patch:
        return base or patch
    return [_joined(ours, theirs) for ours in base for theirs in patch]


def _joined(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Json:
    joined = {
        field: _append(ours.get(field) or [], theirs.get(field) or []) for field in ("matchExpressions", "matchFields")
    }
    return {field: value for field, value in joined.items() if value}


_SPECIAL_LISTS: Mapping[str, Callable[[list[Any], list[Any]], list[Any]]] = {
    "tolerations": _append,
    "nodeSelectorTerms": _both_terms,
    "preferredDuringSchedulingIgnoredDuringExecution": _append,
    "requiredDuringSchedulingIgnoredDuringExecution": _append,  # of Pod affinity, where all terms have to hold
}
