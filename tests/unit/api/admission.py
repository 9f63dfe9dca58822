"""What the API server does with an object and its CRD, as far as rules need it: fill in defaults, evaluate CEL.

Kubernetes adds functions to CEL; those that our rules use are imitated here. The integration tests ask the real one.
"""

import copy
import ipaddress
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import cel

from berth.api.base import quantity_value


def with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """The value with the defaults of the schema, as the API server stores it."""
    if isinstance(value, dict):
        value = dict(value)
        for name, child in schema.get("properties", {}).items():
            if name not in value and "default" in child:
                value[name] = copy.deepcopy(child["default"])
            if name in value:
                value[name] = with_defaults(child, value[name])
        if "additionalProperties" in schema:
            value = {key: with_defaults(schema["additionalProperties"], member) for key, member in value.items()}
    elif isinstance(value, list):
        value = [with_defaults(schema["items"], item) for item in value]
    return value


def violations(schema: dict[str, Any], value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and message of every rule that does not hold for the value and all below it."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if not holds(rule["rule"], value):
            yield _join(path, rule.get("fieldPath", "")), rule["message"]
    if isinstance(value, dict):
        for name, member in value.items():
            if name in schema.get("properties", {}):
                yield from violations(schema["properties"][name], member, _join(path, f".{name}"))
            elif "additionalProperties" in schema:
                yield from violations(schema["additionalProperties"], member, f"{path}[{name}]")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from violations(schema["items"], item, f"{path}[{index}]")


def holds(expression: str, value: Any) -> bool:
    """Whether the rule holds. An expression that cannot be evaluated raises, as the API server refuses then too."""
    context = cel.Context(variables={"self": _escaped(value)})
    context.add_function("isQuantity", _is_quantity)
    context.add_function("quantity", lambda text: float(quantity_value(text)))
    context.add_function("compareTo", lambda one, other: (one > other) - (one < other))
    context.add_function("isCIDR", _is_range)
    result = cel.evaluate(expression, context)
    assert isinstance(result, bool), f"{expression} is {result!r}"
    return result


def _join(path: str, field: str) -> str:
    return (path + re.sub(r"\['([^']+)'\]", r".\1", field)).removeprefix(".")


def _escaped(value: Any) -> Any:
    """Names as CEL sees them."""
    if isinstance(value, dict):
        return {key.replace("-", "__dash__"): _escaped(member) for key, member in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value


def _is_quantity(text: str) -> bool:
    try:
        return quantity_value(text) > Decimal("-Infinity")
    except ValueError:
        return False


def _is_range(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text
