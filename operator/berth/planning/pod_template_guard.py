"""What podTemplate may say: the right shapes, and nothing that takes the Pod out of its sandbox."""

from collections.abc import Iterator, Mapping
from typing import Any

from berth.planning.errors import InvalidSpecError

ROOT = "podTemplate"

_TOP = frozenset({"metadata", "spec"})
_METADATA = frozenset({"labels", "annotations"})

# Fields of a Pod by the shape of their value. Inside a Pod spec a field name has one shape wherever it stands; what
# is not listed is a scalar, or is left to the API server, which names what it refuses.
_TEXT_MAPS = frozenset({"labels", "annotations", "nodeSelector", "matchLabels", "volumeAttributes"})
_QUANTITY_MAPS = frozenset({"limits", "requests", "overhead"})
_OBJECTS = frozenset(
    {
        *("metadata", "spec", "affinity", "nodeAffinity", "podAffinity", "podAntiAffinity", "labelSelector"),
        *("namespaceSelector", "podAffinityTerm", "preference", "securityContext", "seLinuxOptions", "windowsOptions"),
        *("seccompProfile", "appArmorProfile", "capabilities", "resources", "lifecycle", "preStop", "postStart"),
        *("startupProbe", "readinessProbe", "livenessProbe", "httpGet", "exec", "tcpSocket", "grpc", "sleep"),
        *("valueFrom", "secretKeyRef", "configMapKeyRef", "fieldRef", "resourceFieldRef", "secretRef", "configMapRef"),
        *("emptyDir", "hostPath", "persistentVolumeClaim", "secret", "configMap", "projected", "downwardAPI", "csi"),
        *("ephemeral", "volumeClaimTemplate", "nfs", "image", "dnsConfig", "os", "selector", "serviceAccountToken"),
    }
)
_OBJECT_LISTS = frozenset(
    {
        *("containers", "initContainers", "ephemeralContainers", "volumes", "volumeMounts", "volumeDevices", "env"),
        *("envFrom", "ports", "tolerations", "topologySpreadConstraints", "imagePullSecrets", "hostAliases"),
        *("nodeSelectorTerms", "matchExpressions", "matchFields", "httpHeaders", "sources", "items", "sysctls"),
        *("resourceClaims", "claims", "schedulingGates", "readinessGates", "resizePolicy"),
        "preferredDuringSchedulingIgnoredDuringExecution",
    }
)
_PLAIN_LISTS = frozenset(
    {"args", "command", "add", "drop", "values", "supplementalGroups", "accessModes", "matchLabelKeys", "namespaces"}
)


def check_shapes(partial: Any) -> None:
    """Refuse what is no partial PodTemplateSpec. Raises InvalidSpecError with the path."""
    _expect(partial, dict, ROOT)
    _only(partial, _TOP, ROOT)
    metadata = partial.get("metadata")
    if metadata is not None:
        _expect(metadata, dict, f"{ROOT}.metadata")
        _only(metadata, _METADATA, f"{ROOT}.metadata")
    for field, value in partial.items():
        _check_field(value, field, f"{ROOT}.{field}")


def check_safety(partial: Mapping[str, Any]) -> None:
    """Refuse what gives a Pod more than a server needs. Raises InvalidSpecError with the path."""
    for path, why in _unsafe(partial.get("spec") or {}):
        raise InvalidSpecError(
            f"{ROOT}.spec.{path}", f"{why}: remove it, or ask for the operator flag --allow-unsafe-pod-templates"
        )


# ---- shapes --------------------------------------------------------------------------------------------------


def _check_field(value: Any, field: str, path: str) -> None:
    if value is None:
        return  # takes the field away
    if field in _TEXT_MAPS or field in _QUANTITY_MAPS:
        _check_map(value, (str,) if field in _TEXT_MAPS else (str, int, float), path)
    elif field in _OBJECT_LISTS:
        _expect(value, list, path)
        for index, item in enumerate(value):
            _check_object(item, f"{path}[{index}]")
    elif field in _PLAIN_LISTS:
        _expect(value, list, path)
    elif field == "image" and isinstance(value, str):
        return  # of a container; that of a volume is an object
    elif field in _OBJECTS or isinstance(value, dict):
        _check_object(value, path)


def _check_map(value: Any, scalar: tuple[type, ...], path: str) -> None:
    _expect(value, dict, path)
    for key, item in value.items():
        if item is not None:
            _expect(item, scalar, f"{path}[{key}]")


def _check_object(value: Any, path: str) -> None:
    _expect(value, dict, path)
    for field, item in value.items():
        if field.startswith("$") and (field, item) != ("$patch", "delete"):
            raise InvalidSpecError(f"{path}.{field}", "only '$patch: delete' is known: write null to remove a field")
        _check_field(item, field, f"{path}.{field}")


_NAMES: Mapping[type, str] = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}


def _expect(value: Any, kind: type | tuple[type, ...], path: str) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = " or ".join(dict.fromkeys(_NAMES[one] for one in kinds))
        found = "true or false" if isinstance(value, bool) else _NAMES.get(type(value), "nothing")
        hint = ": put it in quotes" if kinds == (str,) and not isinstance(value, dict | list) else ""
        raise InvalidSpecError(path, f"has to be {wanted}, not {found}{hint}")


def _only(value: Mapping[str, Any], allowed: frozenset[str], path: str) -> None:
    for field in value:
        if field not in allowed:
            raise InvalidSpecError(f"{path}.{field}", f"is not known here: use {' or '.join(sorted(allowed))}")


# ---- safety --------------------------------------------------------------------------------------------------

_POD_FIELDS: Mapping[str, str] = {
    "hostNetwork": "servers do not share the node's network",
    "hostPID": "servers do not share the node's processes",
    "hostIPC": "servers do not share the node's memory segments",
    "serviceAccountName": "servers have no rights in the cluster",
    "serviceAccount": "servers have no rights in the cluster",
    "automountServiceAccountToken": "servers have no rights in the cluster",
    "nodeName": "the scheduler chooses the node",
}


def _unsafe(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Paths below the Pod spec, and why they are refused."""
    for field, why in _POD_FIELDS.items():
        if spec.get(field):
            yield field, why
    if _at(spec, "securityContext", "windowsOptions").get("hostProcess"):
        yield "securityContext.windowsOptions.hostProcess", "servers do not run as processes of the node"
    for index, volume in enumerate(spec.get("volumes") or ()):
        if "hostPath" in volume:
            yield f"volumes[{index}].hostPath", "servers do not see the node's files"
        for number, source in enumerate(_at(volume, "projected").get("sources") or ()):
            if "serviceAccountToken" in source:
                path = f"volumes[{index}].projected.sources[{number}].serviceAccountToken"
                yield path, "servers have no rights in the cluster"
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            for path, why in _unsafe_container(container):
                yield f"{kind}[{index}].{path}", why


def _unsafe_container(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    security = _at(container, "securityContext")
    if security.get("privileged"):
        yield "securityContext.privileged", "servers need no privileges, GPUs come from the device plugin"
    if _at(security, "capabilities").get("add"):
        yield "securityContext.capabilities.add", "servers need no capabilities"
    if _at(security, "windowsOptions").get("hostProcess"):
        yield "securityContext.windowsOptions.hostProcess", "servers do not run as processes of the node"
    for index, port in enumerate(container.get("ports") or ()):
        if port.get("hostPort"):
            yield f"ports[{index}].hostPort", "servers are reached through their Service"


def _at(value: Mapping[str, Any], *fields: str) -> Mapping[str, Any]:
    for field in fields:
        value = value.get(field) or {}
    return value
