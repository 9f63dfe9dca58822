"""What every custom resource is built from: names, the base type, validation rules and scalar types."""

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

GROUP = "berth.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

PATTERN_MESSAGE = "x-berth-pattern-message"
"""Keyword beside `pattern`: the sentence that a person reads when a value does not match."""


TYPE_WORD = "x-berth-type"
"""Keyword with the word for a type that the reference page uses instead of text."""


class Reason(StrEnum):
    """What kind of mistake a rule finds; the API server begins its message with it."""

    INVALID = "FieldValueInvalid"
    REQUIRED = "FieldValueRequired"
    FORBIDDEN = "FieldValueForbidden"
    DUPLICATE = "FieldValueDuplicate"


@dataclass(frozen=True)
class Rule:
    """A CEL validation rule (Kubernetes `x-kubernetes-validations`), of a type or of a single field.

    A type lists its rules in `rules`; a scalar or list has them in its `Annotated[...]`.
    `expression` sees the value as `self`; `message` tells a newcomer which field is wrong and the way out;
    `field` is the JSON path below the value that the API server names in its error.
    """

    expression: str
    message: str
    field: str | None = None
    reason: Reason = Reason.INVALID

    def to_json(self) -> dict[str, str]:
        """The rule as it stands in a CRD."""
        rule = {"rule": self.expression, "message": self.message}
        if self.field is not None:
            rule["fieldPath"] = self.field
        if self.reason is not Reason.INVALID:
            rule["reason"] = str(self.reason)
        return rule

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        return {
            **schema,
            "x-kubernetes-validations": [*schema.get("x-kubernetes-validations", ()), self.to_json()],
        }


def matching(pattern: str, message: str, *, max_length: int, min_length: int | None = None, word: str = "text") -> Any:
    """Constraints of a text: its pattern (RE2) and the sentence that a person reads when it does not match."""
    return Field(
        pattern=pattern,
        min_length=min_length,
        max_length=max_length,
        json_schema_extra={PATTERN_MESSAGE: message, TYPE_WORD: word},
    )


class ApiType(BaseModel):
    """A part of a custom resource: snake_case in Python, camelCase in YAML, unknown fields refused.

    `rules` are carried into the CRD; the API server evaluates them at admission.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    def to_json(self) -> dict[str, Any]:
        """The value as the API server would show it: camelCase, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
"""Of a list whose items are told apart by themselves: the API server refuses a second equal one."""

ATOMIC = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})
"""Of a type that is replaced as a whole when several people or programs apply it."""


# ---- scalars -------------------------------------------------------------------------------------------------

_QUANTITY = re.compile(r"^([+-]?[0-9.]+)(|[eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)$")
_FACTORS = {
    suffix: Decimal(1000) ** power for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
}
_FACTORS |= {suffix + "i": Decimal(1024) ** power for power, suffix in enumerate(("K", "M", "G", "T", "P", "E"), 1)}


def quantity_value(text: str) -> Decimal:
    """The number that a Kubernetes quantity such as `1500m`, `24Gi` or `1e3` stands for.

    Raises ValueError when the text is no quantity. Source: apimachinery pkg/api/resource/quantity.go.
    """
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity; write for example 500m, 2 or 16Gi")
    number, suffix = match.groups()
    try:
        value = Decimal(number)
    except ArithmeticError:
        raise ValueError(f"{text!r} is not a quantity; write for example 500m, 2 or 16Gi") from None
    if suffix[:1] in ("e", "E") and suffix not in _FACTORS:
        return value.scaleb(int(suffix[1:]))
    return value * _FACTORS[suffix]


def canonical_quantity(value: str | int | float) -> str:
    """The quantity as the API server writes it back: `1000m` is `1`, `1024Mi` is `1Gi`, `0.5` is `500m`.

    The suffix family (binary, decimal, exponent) is kept, the mantissa has no fraction and the suffix is the
    largest that allows that. Source: `Quantity.CanonicalizeBytes` in apimachinery.
    """
    text = str(value)
    number = quantity_value(text)
    suffix = _QUANTITY.match(text).group(2)  # type: ignore[union-attr]  # quantity_value has refused the rest
    if number == 0:
        return "0"
    if suffix.endswith("i"):
        if abs(number) < 1024:
            suffix = ""  # below one Ki the binary family falls back to plain decimal numbers
        else:
            whole = int(number.to_integral_value(rounding=ROUND_CEILING))
            for name in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
                if whole % int(_FACTORS[name]) == 0:
                    return f"{whole // int(_FACTORS[name])}{name}"
            return str(whole)
    nano = int((number * 10**9).to_integral_value(rounding=ROUND_CEILING))
    exponent = -9
    while nano % 1000 == 0 and exponent < 18:
        nano //= 1000
        exponent += 3
    if suffix[:1] in ("e", "E") and suffix not in _FACTORS:
        return f"{nano}e{exponent}" if exponent else str(nano)
    return f"{nano}{({-9: 'n', -6: 'u', -3: 'm', 0: '', 3: 'k', 6: 'M', 9: 'G', 12: 'T', 15: 'P', 18: 'E'})[exponent]}"


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_seconds(text: str) -> float:
    """Seconds in a duration such as `90s`, `15m` or `1h30m`. Raises ValueError when the text is none."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write for example 90s, 15m or 1h30m")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)


def _number_to_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_number_to_text),
    Field(max_length=64, json_schema_extra={"x-kubernetes-int-or-string": True, TYPE_WORD: "quantity"}),
    Rule(
        "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('0')) >= 0",
        "this is no quantity: write a number with or without a unit, for example 500m, 2 or 16Gi",
    ),
]
"""A Kubernetes quantity, not negative; YAML integers are accepted and kept as text."""

MemoryQuantity = Annotated[
    Quantity,
    Rule(
        "!isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('1Mi')) >= 0",
        "memory and disks are counted in bytes, and this is less than 1Mi: add the unit, for example 16Gi",
    ),
]
"""An amount of memory or disk. Plain small numbers and `m` (thousandths of a byte) are mistakes and refused."""

_DURATION_PATTERN = (
    r"^([0-9]{1,5}(\.[0-9]{1,3})?h)?([0-9]{1,6}(\.[0-9]{1,3})?m)?([0-9]{1,7}(\.[0-9]{1,3})?s)?([0-9]{1,9}ms)?$"
)

Duration = Annotated[
    str,
    matching(
        _DURATION_PATTERN,
        "this is no duration: write for example 90s, 15m or 1h30m",
        min_length=2,
        max_length=32,
        word="duration",
    ),
]
"""A duration in the notation of Go, from hours down to milliseconds: `90s`, `15m`, `1h30m`."""


def at_least(minimum: str, field: str) -> Rule:
    """A rule for a Duration that must not be shorter than `minimum`."""
    return Rule(
        f"!self.matches(r'{_DURATION_PATTERN}') || duration(self) >= duration('{minimum}')",
        f"{field} is too short: write {minimum} or more",
    )


Name = Annotated[
    str,
    matching(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "this is not the name of a Kubernetes object: use lower-case letters, digits, - and dots",
        min_length=1,
        max_length=253,
    ),
]
"""The name of another Kubernetes object."""

HttpPath = Annotated[
    str, matching(r"^/[^\s]*$", "this is no path of a URL: begin with / and leave out spaces", max_length=256)
]
"""The path of a URL."""
