"""The forms that the API server gives back, so that what is applied can be compared with what is observed."""

import hashlib
from collections.abc import Iterator
from decimal import ROUND_CEILING
from typing import Any

import orjson

from berth.api.base import canonical_quantity, duration_seconds, quantity_value
from berth.planning.errors import InvalidSpecError

Json = dict[str, Any]

LONGEST_SECONDS = 366 * 24 * 3600
"""Longer times would not fit into the whole numbers of the API, and nobody means them."""


def canonical_json(value: Any) -> str:
    """The value as text in which equal values are equal."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def content_hash(value: Any) -> str:
    """Hash of a value, short enough for a label (64 bits)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def duration(field: str, text: str) -> float:
    """Seconds of a duration in the spec. Raises InvalidSpecError with the field."""
    try:
        seconds = duration_seconds(text)
    except ValueError as error:
        raise InvalidSpecError(field, str(error)) from None
    if seconds > LONGEST_SECONDS:
        raise InvalidSpecError(field, f"{text} is more than a year: write a shorter time")
    return seconds


def quantity(field: str, value: str | int | float) -> str:
    """The quantity as the API server writes it. Raises InvalidSpecError with the field."""
    try:
        return canonical_quantity(value)
    except ValueError as error:
        raise InvalidSpecError(field, str(error)) from None


def resource_quantity(field: str, value: str | int | float) -> str:
    """The quantity as it stands in limits and requests, where the API server rounds up to thousandths.

    Source: SetDefaults_ResourceList in pkg/apis/core/v1/defaults.go. Raises InvalidSpecError with the field.
    """
    canonical = quantity(field, value)
    thousandths = quantity_value(canonical) * 1000
    if thousandths == thousandths.to_integral_value():
        return canonical
    return quantity(field, f"{thousandths.to_integral_value(rounding=ROUND_CEILING)}m")


def canonical_pod_template(template: Json, path: str) -> Json:
    """The template without nulls and with canonical quantities, changed in place; `path` is where it stands."""
    _drop_nulls(template)
    spec = template.get("spec") or {}
    for resources, name, where in _resource_lists(spec, f"{path}.spec"):
        resources[name] = resource_quantity(where, resources[name])
    for holder, field, where in _single_quantities(spec, f"{path}.spec"):
        holder[field] = quantity(where, holder[field])
    return template


def _drop_nulls(value: Any) -> None:
    if isinstance(value, dict):
        for field in [field for field, item in value.items() if item is None]:
            del value[field]
        for item in value.values():
            _drop_nulls(item)
    elif isinstance(value, list):
        for item in value:
            _drop_nulls(item)


_Place = tuple[Json, str, str]
"""Where a quantity stands: the object, its field and the path."""


def _resource_lists(spec: Json, path: str) -> Iterator[_Place]:
    """The quantities in limits, requests and the like."""
    yield from _all_of(spec, "overhead", path)
    yield from _resources(spec, path)
    for kind, index, container in _containers(spec):
        yield from _resources(container, f"{path}.{kind}[{index}]")
    for index, volume in enumerate(spec.get("volumes") or ()):
        claim = ((volume.get("ephemeral") or {}).get("volumeClaimTemplate") or {}).get("spec") or {}
        yield from _resources(claim, f"{path}.volumes[{index}].ephemeral.volumeClaimTemplate.spec")


def _single_quantities(spec: Json, path: str) -> Iterator[_Place]:
    """The quantities that stand alone: sizes of volumes, divisors of the downward API."""
    for kind, index, container in _containers(spec):
        for number, variable in enumerate(container.get("env") or ()):
            yield from _divisor(variable.get("valueFrom"), f"{path}.{kind}[{index}].env[{number}].valueFrom")
    for index, volume in enumerate(spec.get("volumes") or ()):
        where = f"{path}.volumes[{index}]"
        yield from _one_of(volume.get("emptyDir"), "sizeLimit", f"{where}.emptyDir")
        yield from _of_downward(volume.get("downwardAPI"), f"{where}.downwardAPI")
        for number, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
            yield from _of_downward(source.get("downwardAPI"), f"{where}.projected.sources[{number}].downwardAPI")


def _containers(spec: Json) -> Iterator[tuple[str, int, Json]]:
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            yield kind, index, container


def _of_downward(source: Json | None, path: str) -> Iterator[_Place]:
    for index, item in enumerate((source or {}).get("items") or ()):
        yield from _divisor(item, f"{path}.items[{index}]")


def _divisor(holder: Json | None, path: str) -> Iterator[_Place]:
    yield from _one_of((holder or {}).get("resourceFieldRef"), "divisor", f"{path}.resourceFieldRef")


def _resources(holder: Json, path: str) -> Iterator[_Place]:
    resources = holder.get("resources") or {}
    for field in ("limits", "requests"):
        yield from _all_of(resources, field, f"{path}.resources")


def _all_of(holder: Json, field: str, path: str) -> Iterator[_Place]:
    values = holder.get(field) or {}
    for name in values:
        yield values, name, f"{path}.{field}[{name}]"


def _one_of(holder: Json | None, field: str, path: str) -> Iterator[_Place]:
    if holder and field in holder:
        yield holder, field, f"{path}.{field}"
