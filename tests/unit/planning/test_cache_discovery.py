"""Models that are on a volume already are found page by page, and become artifacts."""

import json
from datetime import timedelta
from typing import Any

import pytest

from berth.planning.cache_discovery import DISCOVER_ANNOTATION
from berth.planning.plan import Plan
from support import builders
from support.builders import GIB, URI
from support.cache_simulation import CacheSimulation, arguments, bound, jobs_in


def llama(**changes: Any) -> dict[str, Any]:
    """A model in the cache of a hub."""
    finding = {"kind": "HuggingFace", "path": "hub/models--org--llama/snapshots/abc", "bytes": 10 * GIB, "files": 3}
    return finding | {"uri": URI, "revision": "abc", "format": "safetensors", "architecture": "llama"} | changes


def loose(name: str = "tiny.gguf") -> dict[str, Any]:
    """A file that somebody put there."""
    return {"kind": "GGUF", "path": f"mine/{name}", "bytes": GIB, "files": 1, "format": "gguf", "architecture": "llama"}


def page(*found: dict[str, Any], after: str = "") -> str:
    return json.dumps({"result": "Succeeded", "found": list(found), "more": bool(after), "after": after or None})


def searching(**spec: Any) -> CacheSimulation:
    """A cluster that searches its volume."""
    cluster = CacheSimulation(adopt=True, **spec)
    cluster.reconcile()
    cluster.bind_claim()
    cluster.reconcile()
    return cluster


def tell(cluster: CacheSimulation, message: str, code: int = 0) -> Plan:
    """The search ends with that message, and is recorded."""
    (job,) = cluster.jobs()
    cluster.step(job)
    (pod,) = cluster.pods_of(job)
    cluster.end(job, pod["metadata"]["name"], code=code, said=message)
    recorded = cluster.reconcile()
    cluster.reconcile()
    return recorded


def state(cluster: CacheSimulation) -> str:
    found: str = cluster.status["discovery"]["state"]
    return found


# ---- the search -----------------------------------------------------------------------------------------------------


def test_nobody_searches_a_volume_unless_it_is_asked_for() -> None:
    cluster = bound()
    assert (jobs_in(cluster.plan()), "discovery" in cluster.status) == ([], False)


def test_a_search_reads_and_does_not_write() -> None:
    (job,) = searching().jobs()
    assert arguments(job) == ["discover", "--volume", "/cache"]
    (mount,) = [
        one for one in job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] if one["name"] == "models"
    ]
    assert mount["readOnly"] is True


def test_a_search_goes_on_page_by_page() -> None:
    cluster = searching()
    tell(cluster, page(llama(), after="hub/models"))
    assert (state(cluster), cluster.status["discovery"]["found"]) == ("Running", 1)
    assert cluster.status["phase"] == "Provisioning"
    cluster.reconcile()
    (job,) = cluster.jobs()
    assert arguments(job)[-2:] == ["--after", "hub/models"]
    told = tell(cluster, page(loose()))
    assert (state(cluster), cluster.status["discovery"]["found"]) == ("Done", 2)
    assert [note.message for note in told.notes] == ["2 models are on the volume already"]


def test_a_search_that_is_done_costs_nothing() -> None:
    cluster = searching()
    tell(cluster, page(llama()))
    cluster.settle()
    cluster.now += timedelta(days=1)
    assert (cluster.plan(), cluster.jobs()) == (Plan(), [])


def test_a_new_request_searches_once_more() -> None:
    cluster = searching()
    tell(cluster, page(llama()))
    cluster.settle()
    metadata = {**cluster.cache["metadata"], "annotations": {DISCOVER_ANNOTATION: "again"}}
    cluster.keep({**cluster.cache, "metadata": metadata})
    cluster.reconcile()
    assert len(cluster.jobs()) == 1
    tell(cluster, page(llama(), loose()))
    assert (cluster.status["discovery"]["request"], len(cluster.entries)) == ("again", 2)


def test_a_search_that_was_cut_off_goes_on() -> None:
    cluster = CacheSimulation(adopt=True)
    for cut in (1, 0, 2, 1, 0):
        cluster.reconcile(cut_off_after=cut)
        cluster.bind_claim()
    tell(cluster, page(llama()))
    assert state(cluster) == "Done"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", ("Running", "ProvisionerFailed")),
        (json.dumps({"result": "Failed", "reason": "VolumeFailed", "message": "I/O"}), ("Running", "VolumeFailed")),
        (json.dumps({"result": "Failed", "reason": "UnsafePath", "message": "no"}), ("Failed", "UnsafePath")),
    ],
)
def test_a_search_that_fails_is_tried_again(message: str, expected: tuple[str, str]) -> None:
    cluster = searching()
    tell(cluster, message, code=1)
    assert (state(cluster), cluster.status["discovery"]["reason"]) == expected
    assert cluster.jobs() == []
    cluster.now += timedelta(hours=1)
    cluster.reconcile()
    tell(cluster, page(llama()))
    assert state(cluster) == "Done"
    assert "reason" not in cluster.status["discovery"]


def test_a_failed_search_stops_no_download() -> None:
    cluster = searching()
    tell(cluster, json.dumps({"result": "Failed", "reason": "UnsafePath", "message": "no"}), code=65)
    cluster.add_model(uri="hf://org/other")
    assert len(jobs_in(cluster.reconcile())) == 1


# ---- what is found --------------------------------------------------------------------------------------------------


def test_what_is_found_is_an_artifact_with_a_model_that_would_serve_it() -> None:
    cluster = searching()
    tell(cluster, page(llama()))
    (entry,) = cluster.entries.values()
    assert (entry["state"], entry["adopted"], entry["path"]) == ("Present", True, llama()["path"])
    assert entry["proposedModel"]["backend"] == "vllm"


def test_what_makes_no_sense_is_no_finding() -> None:
    cluster = searching()
    tell(cluster, page({"kind": "Levitation"}, llama(path="../etc"), loose()))
    assert len(cluster.entries) == 1


def test_a_model_uses_what_was_found_and_downloads_nothing() -> None:
    cluster = searching()
    tell(cluster, page(llama()))
    cluster.add_model()
    cluster.settle()
    (entry,) = cluster.entries.values()
    assert (entry["models"], cluster.volume) == (["m"], {})
    assert cluster.model_phase()[0] == "Pending", "its weights are there"


def test_another_revision_is_downloaded() -> None:
    cluster = searching()
    tell(cluster, page(llama()))
    cluster.add_model(uri=f"{URI}@v2")
    cluster.settle()
    assert cluster.state(f"{URI}@v2") == "Present"


def test_what_was_found_is_never_evicted() -> None:
    cluster = searching(limit="15Gi", eviction="LRU")
    tell(cluster, page(llama()))
    cluster.add_model(uri="hf://org/other")
    cluster.settle()
    assert cluster.state("hf://org/other") == "Failed"
    assert any(entry.get("adopted") for entry in cluster.entries.values())


def test_a_download_of_berths_own_is_known_again() -> None:
    """After its status was lost, or on a volume that another cluster filled."""
    cluster = searching()
    mine = builders.entry()
    tell(
        cluster, page({"kind": "Berth", "path": mine["name"], "bytes": GIB, "files": 1, "uri": URI, "revision": "abc"})
    )
    cluster.add_model()
    cluster.settle()
    assert (cluster.state(), cluster.volume) == ("Present", {})
    assert "adopted" not in cluster.entries[URI]


def test_what_was_found_is_forgotten_when_nobody_adopts_any_more() -> None:
    cluster = searching()
    tell(cluster, page(llama()))
    cluster.edit(adopt=False)
    cluster.settle()
    assert (cluster.entries, "discovery" in cluster.status) == ({}, False)


def test_a_model_of_what_is_not_adopted_any_more_gets_a_download() -> None:
    cluster = searching()
    tell(cluster, page(llama()))
    cluster.add_model()
    cluster.settle()
    cluster.edit(adopt=False)
    cluster.settle()
    assert (cluster.state(), list(cluster.volume.values())) == ("Present", [10 * GIB])


def test_a_search_that_is_not_wanted_any_more_ends() -> None:
    cluster = searching()
    assert len(cluster.jobs()) == 1
    cluster.edit(adopt=False)
    cluster.settle()
    assert cluster.jobs() == []
