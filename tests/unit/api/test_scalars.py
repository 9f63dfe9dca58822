"""Texts that stand for numbers: quantities and durations."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.base import canonical_quantity, duration_seconds, quantity_value
from berth.api.model import ComputeResources, Health
from berth.api.schema import described_schema

DURATION = described_schema(Health)["properties"]["period"]["pattern"]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1000m", "1"), ("1024Mi", "1Gi"), ("0.5", "500m"), ("1500m", "1500m"), ("1.5Gi", "1536Mi"), ("0", "0"),
        ("1e3", "1e3"), ("0.5Ki", "512"), ("1025Ki", "1025Ki"), ("100000", "100k"), ("1G", "1G"),
    ],
)  # fmt: skip
def test_a_quantity_is_written_back_as_the_api_server_does(text: str, canonical: str) -> None:
    assert canonical_quantity(text) == canonical


@given(st.integers(0, 10**12), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e2"]))
def test_the_canonical_quantity_is_the_same_number(number: int, suffix: str) -> None:
    assert quantity_value(canonical_quantity(f"{number}{suffix}")) == quantity_value(f"{number}{suffix}")


@pytest.mark.parametrize("text", ["", "1 Gi", "lots", "1.2.3", "Gi", "1gi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity_value(text)


def test_an_integer_is_kept_as_text() -> None:
    assert ComputeResources.model_validate({"cpu": 2}).cpu == "2"


@given(st.from_regex(DURATION, fullmatch=True).filter(lambda text: 2 <= len(text) <= 32))
def test_every_duration_that_the_api_server_admits_is_understood(text: str) -> None:
    assert duration_seconds(text.rstrip("\n")) >= 0


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("1.5m", 90), ("0s", 0)])
def test_a_duration_has_its_seconds(text: str, seconds: float) -> None:
    assert re.match(DURATION, text)
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["5", "5 minutes", "-1s", "1d", "s", "1m1h"])
def test_what_is_no_duration_does_not_match(text: str) -> None:
    assert not re.match(DURATION, text)
