"""Every rule of the Model CRD has an example that it refuses and one that it accepts."""

from collections.abc import Iterator
from typing import Any

import pytest

from berth.api.crd import RESOURCES, custom_resource_definition
from berth.api.model import Model
from unit.api.admission import violations, with_defaults
from unit.api.model_examples import Example, load_examples, model

EXAMPLES = load_examples()
CRD = custom_resource_definition(next(resource for resource in RESOURCES if resource.type is Model))
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def _admit(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    return list(violations(SCHEMA, with_defaults(SCHEMA, manifest)))


def _messages(schema: dict[str, Any]) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["message"]
    children = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for child in children:
        if child is not None:
            yield from _messages(child)


MESSAGES = sorted(set(_messages(SCHEMA)))


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_refused_example_breaks_its_rule_only(example: Example) -> None:
    found = _admit(example.refused)
    assert [path for path, _ in found] == [example.at], found
    assert example.says in found[0][1]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_accepted_example_breaks_no_rule(example: Example) -> None:
    assert _admit(example.accepted) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_what_the_rules_accept_the_type_accepts_too(example: Example) -> None:
    # The operator reads with the types what the API server has admitted, so they must not be narrower.
    accepted = with_defaults(SCHEMA, example.accepted)
    Model.model_validate({"spec": accepted["spec"], "status": accepted["status"]})


@pytest.mark.parametrize("message", MESSAGES)
def test_every_rule_has_an_example(message: str) -> None:
    assert [str(example) for example in EXAMPLES if example.says in message] != []


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_sentence_that_names_the_way_out(message: str) -> None:
    assert not message.endswith(".")
    assert "\n" not in message
    assert 20 < len(message) <= 200
    assert ":" in message or " or " in message, "says what is wrong, but not what to do"


def test_rules_hold_when_every_optional_part_is_omitted() -> None:
    smallest = model({"backend": "llamacpp", "source": {"uri": "pvc://weights/model.gguf"}})
    assert _admit(smallest) == []
    assert set(smallest["spec"]) == {"backend", "source"}


@pytest.mark.parametrize("part", ["gpus", "limits", "requests", "serving", "rollout", "health", "shutdown", "network"])
def test_rules_hold_when_a_part_is_empty(part: str) -> None:
    assert _admit(model({part: {}})) == []
