"""Whether an observed object already is what is desired: every rendered leaf is there with its value.

The API server adds defaults, and other writers add labels, containers or variables of their own; both are fine.
Lists are compared as server-side apply merges them: some by a key, the others as one value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from berth.planning import names

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "resourceClaims": ("name",),
    "claims": ("name",),
    "schedulingGates": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
}
"""Keys of lists that server-side apply merges (`x-kubernetes-list-map-keys` in the OpenAPI of Kubernetes 1.35)."""

PORT_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("containerPort", "protocol"),
    "initContainers": ("containerPort", "protocol"),
    "spec": ("port", "protocol"),
}
"""Keys of lists called `ports`, by what they are in: containers and Services. Those of a NetworkPolicy have none."""

KEY_DEFAULTS: Mapping[str, str] = {"protocol": "TCP"}

_ABSENT = object()


def is_applied(desired: Mapping[str, Any], observed: Mapping[str, Any]) -> bool:
    """Whether exactly this manifest was applied last and all of it is still there."""
    return _applied_hash(desired) == _applied_hash(observed) and not differences(desired, observed)


def differences(desired: Mapping[str, Any], observed: Mapping[str, Any]) -> list[str]:
    """Paths of the leaves that are not observed with their desired value; empty when the object is as desired.

    Zero values ("", 0, false, null, {} and []) equal absent ones: the API server leaves them out.
    """
    return _of_maps(desired, observed, "")


def merge_keys(parent: str, field: str) -> tuple[str, ...] | None:
    """The keys by which the elements of the list `field` inside of `parent` are told apart; None for a plain list."""
    return PORT_KEYS.get(parent) if field == "ports" else MERGE_KEYS.get(field)


def element_key(element: Any, keys: tuple[str, ...]) -> tuple[Any, ...] | None:
    """The identity of a list element; None when it lacks a key."""
    if not isinstance(element, Mapping):
        return None
    values = tuple(element.get(key, KEY_DEFAULTS.get(key)) for key in keys)
    return None if None in values else values


def _applied_hash(manifest: Mapping[str, Any]) -> Any:
    return ((manifest.get("metadata") or {}).get("annotations") or {}).get(names.APPLIED_ANNOTATION)


def _of_values(desired: Any, observed: Any, parent: str, field: str) -> list[str]:
    """Paths below the value of `field`; the value itself is the empty path."""
    if isinstance(desired, Mapping):
        if isinstance(observed, Mapping):
            return _of_maps(desired, observed, field)
        return [] if observed is _ABSENT and _is_zero(desired) else [""]
    if isinstance(desired, list | tuple):
        if isinstance(observed, list | tuple):
            return _of_lists(desired, observed, parent, field)
        return [] if observed is _ABSENT and not desired else [""]
    if observed is _ABSENT or observed is None:
        return [] if not desired else [""]
    # True == 1 in Python, but not in JSON.
    same = desired == observed and isinstance(desired, bool) == isinstance(observed, bool)
    return [] if same else [""]


def _of_maps(desired: Mapping[str, Any], observed: Mapping[str, Any], name: str) -> list[str]:
    found = []
    for field, value in desired.items():
        for path in _of_values(value, observed.get(field, _ABSENT), name, field):
            found.append(_join(field, path))
    return found


def _of_lists(desired: Sequence[Any], observed: Sequence[Any], parent: str, field: str) -> list[str]:
    keys = merge_keys(parent, field)
    if keys is not None:
        by_key = {element_key(element, keys): element for element in reversed(observed)}
        wanted = [element_key(element, keys) for element in desired]
        if None not in by_key and None not in wanted:
            return [
                _join(f"[{_label(keys, key)}]", path)
                for key, element in zip(wanted, desired, strict=True)
                for path in _of_values(element, by_key.get(key, _ABSENT), parent, field)
            ]
    if len(desired) != len(observed):
        return [""]
    return [
        _join(f"[{index}]", path)
        for index, (one, other) in enumerate(zip(desired, observed, strict=True))
        for path in _of_values(one, other, parent, field)
    ]


def _is_zero(value: Mapping[str, Any]) -> bool:
    """Whether nothing in a map says anything, so that an absent one equals it."""
    return all(not item if not isinstance(item, Mapping) else _is_zero(item) for item in value.values())


def _label(keys: tuple[str, ...], key: tuple[Any, ...] | None) -> str:
    return ",".join(f"{name}={value}" for name, value in zip(keys, key or (), strict=False))


def _join(field: str, path: str) -> str:
    """A path such as `spec.containers[name=server].image` or `metadata.labels[berth.dev/model]`."""
    head = f"[{field}]" if ("." in field or "/" in field) and not field.startswith("[") else field
    return head if not path else f"{head}{path}" if path.startswith("[") else f"{head}.{path}"
