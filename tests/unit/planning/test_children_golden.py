"""Every golden Model becomes exactly the manifests beside it."""

import os

import pytest
import yaml

from berth.planning.equality import differences, is_applied
from golden import cases


@pytest.mark.parametrize("case", cases.all_cases())
def test_a_model_becomes_the_manifests_beside_it(case: str) -> None:
    rendered = cases.render(cases.model(case), stored=cases.stored(case))
    path = cases.manifests_path(case)
    if os.environ.get("BERTH_UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump_all(rendered, sort_keys=False, width=110))
    assert list(yaml.safe_load_all(path.read_text())) == rendered, "BERTH_UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("case", cases.all_cases())
def test_rendered_manifests_equal_themselves(case: str) -> None:
    for manifest in cases.render(cases.model(case), stored=cases.stored(case)):
        assert differences(manifest, manifest) == []
        assert is_applied(manifest, manifest)


def test_every_model_has_its_manifests_and_the_other_way_round() -> None:
    expected = {path.name for path in cases.FOLDER.glob("*.yaml") if not path.name.endswith(".model.yaml")}
    assert expected == {f"{case}.yaml" for case in cases.all_cases()}
