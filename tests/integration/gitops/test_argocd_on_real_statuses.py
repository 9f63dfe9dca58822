"""The scripts for Argo CD on statuses that the operator wrote, and the test data that is made of them.

BERTH_UPDATE_GOLDEN=1 writes the test data anew: after a change of what the operator says.
"""

import json
import os

import pytest
import yaml

from support import argo_data, argo_lua
from support.argo_data import CUSTOMIZATIONS, HEALTH, OFFERED, as_test_data, shown
from support.gitops import Way, tracked
from support.kstatus import kstatus
from support.kube import Cluster
from support.model_phases import Stage
from support.models import Manifest, custom, wait_for_phase

pytestmark = pytest.mark.control_plane

KSTATUS = {"Healthy": "Current", "Progressing": "InProgress", "Degraded": "Failed"}
SCRIPTS = {kind: (CUSTOMIZATIONS / kind / "health.lua").read_text() for kind in ("Model", "ModelCache")}
DISCOVERY = (CUSTOMIZATIONS / "Model/actions/discovery.lua").read_text()


def _action(name: str) -> str:
    return (CUSTOMIZATIONS / "Model/actions" / name / "action.lua").read_text()


def test_every_phase_of_the_test_data_is_reached_or_made_from_one_that_is(staged: Stage) -> None:
    made = {"new", "changed", "queued"}
    models = {name for name, live in staged.reached.items() if live["kind"] == "Model"}
    assert models | made == set(HEALTH["Model"])
    assert {name for name, live in staged.reached.items() if live["kind"] == "ModelCache"} | {"new"} == set(
        HEALTH["ModelCache"]
    )


def test_health_and_kstatus_agree_on_what_the_operator_says(staged: Stage) -> None:
    for name, live in staged.reached.items():
        kind = live["kind"]
        health = argo_lua.health(SCRIPTS[kind], live)["status"]
        assert (name, health) == (name, HEALTH[kind][name])
        assert (name, kstatus(live["metadata"]["generation"], live["status"])) == (name, KSTATUS[health])


def test_every_action_that_is_offered_is_accepted_by_the_api_server(staged: Stage, way: Way) -> None:
    """Argo CD sends the difference as a merge patch; what Git does not mention stays no difference afterwards."""
    for name, live in staged.reached.items():
        if live["kind"] != "Model":
            continue
        offered = {key for key, action in argo_lua.actions(DISCOVERY, live).items() if not action["disabled"]}
        assert (name, offered) == (name, set(OFFERED[name]))
        for action in offered:
            changed = argo_lua.act(_action(action), live)
            body = {"spec": changed["spec"], "metadata": {"annotations": changed["metadata"]["annotations"]}}
            staged.cluster.kubectl(
                *("-n", staged.namespace, "patch", "model", name, "--type=merge", "--dry-run=server"),
                *("-p", json.dumps(body)),
            )


def test_an_action_shows_as_a_difference_only_where_git_says_otherwise(staged: Stage, way: Way) -> None:
    cluster, namespace = staged.cluster, staged.namespace
    silent, outspoken = tracked(custom("silent")), tracked(custom("outspoken", state="Running"))
    for manifest in (silent, outspoken):
        way.kubectl(cluster, namespace, "apply", manifest)
        name = manifest["metadata"]["name"]
        for action in ("restart", "stop"):
            live = cluster.get("model", name, namespace)
            assert live is not None
            changed = argo_lua.act(_action(action), live)
            body = json.dumps(
                {"spec": changed["spec"], "metadata": {"annotations": changed["metadata"]["annotations"]}}
            )
            cluster.kubectl("-n", namespace, "patch", "model", name, "--type=merge", "-p", body)
    wait_for_phase(cluster, namespace, "silent", "Stopped")
    assert way.kubectl(cluster, namespace, "diff", silent, check=False).stdout == ""
    assert "state: Stopped" in way.kubectl(cluster, namespace, "diff", outspoken, check=False).stdout


def test_the_test_data_is_what_the_operator_says(staged: Stage, way: Way) -> None:
    if os.environ.get("BERTH_UPDATE_GOLDEN"):
        _update(staged)
    for name, live in staged.reached.items():
        told = argo_data.load(live["kind"], name)
        assert (name, shown(told["status"])) == (name, shown(live["status"])), "run again with BERTH_UPDATE_GOLDEN=1"


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in HEALTH.items() for case in cases])
def test_the_api_server_takes_the_test_data_as_it_is(
    control_plane: Cluster, namespace: str, kind: str, case: str
) -> None:
    """Spec and status are accepted by the strictest validation and lose no field, and kubectl waits as Argo CD does."""
    obj = argo_data.load(kind, case)
    cluster, name = control_plane, obj["metadata"]["name"]
    where = namespace if "namespace" in obj["metadata"] else ""
    flags = ("-n", where) if where else ()
    fresh: Manifest = {**obj, "metadata": {"name": name}}
    behind = obj["status"]["observedGeneration"] != obj["metadata"]["generation"]
    status = {**obj["status"], "observedGeneration": -1 if behind else 1}
    status["conditions"] = [
        {**condition, "observedGeneration": status["observedGeneration"]} for condition in status.get("conditions", ())
    ]
    try:
        cluster.kubectl(*flags, "create", "--validate=strict", "-f", "-", input=yaml.safe_dump(fresh))
        body = json.dumps({"status": status})
        cluster.kubectl(*flags, "patch", kind, name, "--subresource=status", "--type=merge", "-p", body)
        live = cluster.get(kind.lower(), name, where)
        assert live is not None
        assert live.get("spec") == obj.get("spec")
        assert live["status"] == status
        if kind != "GPUNode":
            wait = ("wait", "--for=condition=Ready", "--timeout=0", f"{kind}/{name}")
            done = cluster.kubectl(*flags, *wait, check=False)
            assert (done.returncode == 0) == (HEALTH[kind][case] == "Healthy"), done.stderr
    finally:
        cluster.kubectl(*flags, "delete", kind, name, "--ignore-not-found", "--wait=false")


def _update(staged: Stage) -> None:
    objects = {(live["kind"], name): live for name, live in staged.reached.items()}
    ready, pending, empty = (
        objects[key] for key in (("Model", "ready"), ("Model", "pending"), ("ModelCache", "empty"))
    )
    unseen = {"observedGeneration": -1, "phase": "Pending"}
    objects["Model", "new"] = _made("new", ready, status=unseen, generation=1)
    objects["ModelCache", "new"] = _made("new", empty, status=unseen, generation=1)
    later = ready["metadata"]["generation"] + 1
    objects["Model", "changed"] = _made("changed", ready, status=ready["status"], generation=later)
    objects["Model", "queued"] = _made("queued", pending, status=_queued(pending), generation=1)
    for (kind, name), live in objects.items():
        path = CUSTOMIZATIONS / kind / "testdata" / f"{name}.yaml"
        path.write_text(as_test_data(live))
    argo_data.write_tests()


def _made(name: str, like: Manifest, *, status: Manifest, generation: int) -> Manifest:
    metadata = {**like["metadata"], "name": name, "generation": generation}
    return {**like, "metadata": metadata, "status": status}


def _queued(pending: Manifest) -> Manifest:
    """What a Model that waits for GPU memory says."""
    words = "waits for 40 GiB on one GPU; the freest has 22 GiB"
    conditions = [
        {**one, "reason": "WaitingForMemory", "message": words} if one["type"] in ("Ready", "Reconciling") else one
        for one in pending["status"]["conditions"]
    ]
    queue = {"position": "2", "reason": "WaitingForMemory", "message": words, "since": "2026-11-02T09:30:00Z"}
    return {**pending["status"], "phase": "Queued", "conditions": conditions, "queue": queue}
