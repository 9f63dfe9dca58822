"""Who may reach a Model."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from berth.api.base import ATOMIC, ApiType, Reason, Rule, matching


class LabelOperator(StrEnum):
    """How a requirement compares a label with its values."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"

LabelValue = Annotated[
    str,
    matching(
        r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        "this is no value of a label: use letters, digits, -, _ and dots, at most 63",
        max_length=63,
    ),
]
"""The value of a label."""


class LabelSelectorRequirement(ApiType):
    """One requirement on labels."""

    rules: ClassVar = (
        Rule(
            "!(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)",
            "operators In and NotIn compare with values: add at least one, or use Exists or DoesNotExist",
            ".values",
            Reason.REQUIRED,
        ),
        Rule(
            "self.operator in ['In', 'NotIn'] || !has(self.values) || self.values.size() == 0",
            "operators Exists and DoesNotExist compare with nothing: remove values, or use In or NotIn",
            ".values",
            Reason.FORBIDDEN,
        ),
    )

    key: Annotated[
        str,
        matching(_LABEL_KEY, "this is no key of a label: write for example app or example.com/team", max_length=317),
    ]
    """Label key."""
    operator: LabelOperator
    """In, NotIn, Exists or DoesNotExist."""
    values: Annotated[list[LabelValue], Field(max_length=16)] | None = None
    """Values for In and NotIn."""


class LabelSelector(ApiType):
    """Objects whose labels match."""

    model_config = ATOMIC

    match_labels: (
        Annotated[
            dict[str, LabelValue],
            Field(max_length=16),
            Rule(
                f"self.all(key, size(key) <= 317 && key.matches(r'{_LABEL_KEY}'))",
                "this has no key of a label: write for example app or example.com/team",
            ),
        ]
        | None
    ) = None
    """Labels that an object must have."""
    match_expressions: Annotated[list[LabelSelectorRequirement], Field(max_length=8)] | None = None
    """Requirements on labels."""


AddressRange = Annotated[
    str,
    Field(max_length=64),
    Rule("isCIDR(self)", "this is no range of addresses: write for example 192.0.2.0/24 or 2001:db8::/32"),
]
"""A range of addresses in CIDR notation."""


class IpBlock(ApiType):
    """A range of addresses."""

    cidr: AddressRange
    """The range, for example `192.0.2.0/24`."""
    except_: Annotated[Annotated[list[AddressRange], Field(max_length=32)] | None, Field(alias="except")] = None
    """Ranges within it that are left out."""


class NetworkPeer(ApiType):
    """Who may reach the server: Pods, namespaces or addresses, as in a NetworkPolicy."""

    rules: ClassVar = (
        Rule(
            "has(self.podSelector) || has(self.namespaceSelector) || has(self.ipBlock)",
            "an entry of network.allowFrom needs podSelector, namespaceSelector or ipBlock",
        ),
        Rule(
            "!has(self.ipBlock) || !(has(self.podSelector) || has(self.namespaceSelector))",
            "ipBlock stands alone: put the selectors into an entry of their own",
            ".ipBlock",
            Reason.FORBIDDEN,
        ),
    )

    pod_selector: LabelSelector | None = None
    """Pods, in this namespace or in those of namespaceSelector."""
    namespace_selector: LabelSelector | None = None
    """Namespaces."""
    ip_block: IpBlock | None = None
    """Addresses."""


class Network(ApiType):
    """Who may reach the server."""

    allow_from: Annotated[list[NetworkPeer], Field(max_length=32)] | None = None
    """Peers that may connect; the Model's own namespace when omitted. Berth and the metrics scraper always may."""
