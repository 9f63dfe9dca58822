"""Values in the forms of the API server, and hashes that depend on content alone."""

import pytest

from berth.planning.canonical import canonical_json, content_hash, duration, quantity, resource_quantity
from berth.planning.errors import InvalidSpecError


def test_equal_values_have_equal_hashes_whatever_their_order() -> None:
    assert content_hash({"a": 1, "b": [1, 2]}) == content_hash({"b": [1, 2], "a": 1})
    assert content_hash({"a": [1, 2]}) != content_hash({"a": [2, 1]})
    assert canonical_json({"ö": 1, "a": None}) == '{"a":null,"ö":1}'


def test_a_hash_fits_into_a_label() -> None:
    assert len(content_hash({})) == 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1000m", "1"), ("0.5", "500m"), ("100n", "1m"), ("1500u", "2m"), ("0.0005", "1m"), ("1024Mi", "1Gi"), ("0", "0")],
)
def test_resources_are_rounded_up_to_thousandths(text: str, expected: str) -> None:
    assert resource_quantity("limits.cpu", text) == expected


def test_other_quantities_keep_their_precision() -> None:
    assert quantity("x", "100n") == "100n"


@pytest.mark.parametrize("text", ["", "4 cores", "1GB", "--1", "Gi", "1.2.3"])
def test_what_is_no_quantity_names_its_field(text: str) -> None:
    with pytest.raises(InvalidSpecError, match=r"^limits\.cpu"):
        resource_quantity("limits.cpu", text)


def test_durations_are_seconds_and_not_without_end() -> None:
    assert duration("x", "1h30m") == 5400
    with pytest.raises(InvalidSpecError, match=r"health.period: .* year"):
        duration("health.period", "9000h")
    with pytest.raises(InvalidSpecError, match=r"^health\.period"):
        duration("health.period", "soon")
