"""What the real API server answers, and what the gateway makes of it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from berth.cluster import errors
from berth.cluster.connection import connect, credentials_for_kopf
from berth.cluster.gateway import Gateway
from berth.cluster.resources import CONFIG_MAPS, DEPLOYMENTS, MODELS, NAMESPACES, ResourceType
from berth.cluster.transport import Limits, Request
from berth.cluster.waiting import Backoff
from support.fault_proxy import FaultProxy
from support.kube import Cluster

pytestmark = pytest.mark.control_plane

QUICK = Limits(deadline=10.0, backoff=Backoff(first=0.01, longest=0.1))


@pytest.fixture
async def gateway(control_plane: Cluster) -> AsyncIterator[Gateway]:
    client = await connect(control_plane.kubeconfig)
    yield Gateway(client, limits=QUICK)
    await client.close()


@pytest.fixture
async def proxy(control_plane: Cluster, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(control_plane.kubeconfig, tmp_path) as proxy:
        yield proxy


@pytest.fixture
async def proxied(proxy: FaultProxy) -> AsyncIterator[Gateway]:
    """A gateway through the proxy."""
    client = await connect(proxy.kubeconfig)
    yield Gateway(client, limits=QUICK)
    await client.close()


def config_map(
    namespace: str, name: str = "a", *, metadata: dict[str, Any] | None = None, **data: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name, **(metadata or {})},
        "data": data,
    }


async def test_apply_creates_and_changes(gateway: Gateway, namespace: str) -> None:
    created = await gateway.apply(config_map(namespace, x="1", y="1"), force=False)
    assert (created["kind"], created["apiVersion"]) == ("ConfigMap", "v1")
    changed = await gateway.apply(config_map(namespace, x="2"), force=False)
    assert changed["data"] == {"x": "2"}
    again = await gateway.apply(config_map(namespace, x="2"), force=False)
    assert again["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


async def test_without_force_anothers_object_stays_untouched(
    gateway: Gateway, control_plane: Cluster, namespace: str
) -> None:
    control_plane.kubectl("-n", namespace, "create", "configmap", "a", "--from-literal=x=theirs")
    before = control_plane.get("configmap", "a", namespace)
    with pytest.raises(errors.FieldManagerConflictError) as caught:
        await gateway.apply(config_map(namespace, x="ours"), force=False)
    assert caught.value.fields == (".data.x",)
    assert caught.value.managers == ("kubectl-create",)
    assert control_plane.get("configmap", "a", namespace) == before
    assert (await gateway.apply(config_map(namespace, x="ours"), force=True))["data"] == {"x": "ours"}


async def test_an_outdated_resource_version_is_refused_also_with_force(gateway: Gateway, namespace: str) -> None:
    decided_on = await gateway.apply(config_map(namespace, x="1"), force=True)
    await gateway.apply(config_map(namespace, x="2"), force=True)
    stale = {key: decided_on["metadata"][key] for key in ("uid", "resourceVersion")}
    with pytest.raises(errors.ResourceVersionConflictError):
        await gateway.apply(config_map(namespace, x="3", metadata=stale), force=True)
    assert (await gateway.get(CONFIG_MAPS, namespace, "a"))["data"] == {"x": "2"}


async def test_only_the_uid_keeps_a_deleted_object_from_coming_back(gateway: Gateway, namespace: str) -> None:
    """An apply with a resourceVersion alone creates what is gone: such a decision needs the uid as well."""
    gone = (await gateway.apply(config_map(namespace), force=True))["metadata"]
    assert await gateway.delete(CONFIG_MAPS, namespace, "a", uid=gone["uid"], resource_version=None)
    both = {"uid": gone["uid"], "resourceVersion": gone["resourceVersion"]}
    with pytest.raises(errors.ResourceVersionConflictError):
        await gateway.apply(config_map(namespace, metadata=both), force=True)
    alone = {"resourceVersion": gone["resourceVersion"]}
    back = await gateway.apply(config_map(namespace, metadata=alone), force=True)
    assert back["metadata"]["uid"] != gone["uid"]
    with pytest.raises(errors.ResourceVersionConflictError):  # another object of that name
        await gateway.apply(config_map(namespace, metadata={"uid": gone["uid"]}), force=True)


async def test_a_delete_is_of_one_object_in_one_state(gateway: Gateway, namespace: str) -> None:
    found = (await gateway.apply(config_map(namespace), force=True))["metadata"]
    with pytest.raises(errors.ResourceVersionConflictError):
        await gateway.delete(CONFIG_MAPS, namespace, "a", uid="another", resource_version=None)
    with pytest.raises(errors.ResourceVersionConflictError):
        await gateway.delete(CONFIG_MAPS, namespace, "a", uid=found["uid"], resource_version="1")
    version = found["resourceVersion"]
    assert await gateway.delete(CONFIG_MAPS, namespace, "a", uid=found["uid"], resource_version=version) is True
    assert await gateway.delete(CONFIG_MAPS, namespace, "a", uid=found["uid"], resource_version=version) is False


async def test_undeclared_fields_are_refused_by_each_verb(gateway: Gateway, namespace: str) -> None:
    wrong = {**config_map(namespace), "dat": {"x": "1"}}
    with pytest.raises(errors.InvalidObjectError, match=r"\.dat: field not declared in schema") as caught:
        await gateway.apply(wrong, force=True)
    assert caught.value.status == 500
    with pytest.raises(errors.InvalidObjectError, match="dat") as caught:
        await gateway.create(wrong)
    assert caught.value.status == 400
    await gateway.create(config_map(namespace))
    with pytest.raises(errors.InvalidObjectError, match='unknown field "dat"') as caught:
        await gateway.merge_patch(CONFIG_MAPS, namespace, "a", {"dat": {}})
    assert caught.value.status == 422


@pytest.fixture
def widgets(control_plane: Cluster) -> Iterator[ResourceType]:
    """A custom resource of the test's own."""
    control_plane.apply(WIDGET_DEFINITION)
    control_plane.kubectl("wait", "--for=condition=Established", "crd/widgets.gateway.test")
    yield ResourceType("gateway.test", "v1", "widgets", "Widget")
    control_plane.kubectl("delete", "crd", "widgets.gateway.test", "--wait=false")


async def test_undeclared_fields_of_a_custom_resource_are_refused(
    gateway: Gateway, widgets: ResourceType, namespace: str
) -> None:
    widget = {"apiVersion": "gateway.test/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"x": 1}}
    path = widgets.path(namespace, "w")
    send = gateway._transport.send

    def apply(body: dict[str, Any]) -> Request:
        query = {"fieldManager": "berth", "force": "true"}
        return Request("apply", "widgets", "PATCH", path, query, body, "application/apply-patch+yaml")

    with pytest.raises(errors.InvalidObjectError, match=r"\.spec\.y: field not declared in schema"):
        await send(apply({**widget, "spec": {"y": 1}}))
    with pytest.raises(errors.InvalidObjectError, match=r"spec\.x"):
        await send(apply({**widget, "spec": {"x": "text"}}))
    await send(apply(widget))
    with pytest.raises(errors.InvalidObjectError, match=r"unknown field \"status\.y\""):
        await gateway.merge_patch(widgets, namespace, "w", {"status": {"y": 1}}, subresource="status")
    done = await gateway.merge_patch(widgets, namespace, "w", {"status": {"z": 1}}, subresource="status")
    assert done["status"] == {"z": 1}


async def test_create_and_merge_patch(gateway: Gateway, namespace: str) -> None:
    created = await gateway.create(config_map(namespace, x="1", y="1"))
    with pytest.raises(errors.AlreadyExistsError):
        await gateway.create(config_map(namespace))
    patched = await gateway.merge_patch(CONFIG_MAPS, namespace, "a", {"data": {"x": None}})
    assert patched["data"] == {"y": "1"}
    version = {"metadata": {"resourceVersion": created["metadata"]["resourceVersion"]}, "data": {"y": "2"}}
    with pytest.raises(errors.ResourceVersionConflictError):
        await gateway.merge_patch(CONFIG_MAPS, namespace, "a", version)


async def test_what_is_missing_is_said(gateway: Gateway, namespace: str) -> None:
    with pytest.raises(errors.NotFoundError) as caught:
        await gateway.get(CONFIG_MAPS, namespace, "nothing")
    assert (caught.value.kind_is_missing, caught.value.namespace_is_missing) == (False, False)
    with pytest.raises(errors.NotFoundError) as caught:
        await gateway.apply(config_map("no-such-namespace"), force=True)
    assert caught.value.namespace_is_missing
    with pytest.raises(errors.NotFoundError) as caught:
        await gateway.get(ResourceType("gateway.test", "v9", "gadgets", "Gadget"), namespace, "g")
    assert caught.value.kind_is_missing


async def test_lists_come_in_pages_with_their_kind(gateway: Gateway, namespace: str) -> None:
    for number in range(5):
        manifest = config_map(namespace, f"c{number}", metadata={"labels": {"half": str(number % 2)}}, x="1")
        await gateway.apply(manifest, force=True)
    select = "half=0"
    items, version = await gateway.list(CONFIG_MAPS, namespace=namespace, label_selector=select, page_size=2)
    assert [item["metadata"]["name"] for item in items] == ["c0", "c2", "c4"]
    assert {(item["apiVersion"], item["kind"]) for item in items} == {("v1", "ConfigMap")}
    assert int(version) > 0
    brief, _ = await gateway.list(CONFIG_MAPS, namespace=namespace, label_selector=select, metadata_only=True)
    assert [set(item) for item in brief] == [{"apiVersion", "kind", "metadata"}] * 3
    cached, _ = await gateway.list(NAMESPACES, from_cache=True)
    assert "default" in {item["metadata"]["name"] for item in cached}
    assert (await gateway.list(DEPLOYMENTS, namespace=namespace))[0] == []


async def test_a_used_up_quota_is_told(gateway: Gateway, control_plane: Cluster, namespace: str) -> None:
    hard = {"count/configmaps": "0"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": hard}}
    control_plane.apply(quota, namespace=namespace)
    status = json.dumps({"status": {"hard": hard, "used": {"count/configmaps": "0"}}})
    control_plane.kubectl(
        "-n", namespace, "patch", "resourcequota", "none", "--subresource=status", "--type=merge", "-p", status
    )

    async def until_it_is_noticed() -> None:
        for number in range(2000):
            await gateway.apply(config_map(namespace, f"c{number}"), force=True)

    with pytest.raises(errors.ForbiddenError) as caught:
        await until_it_is_noticed()
    assert caught.value.is_quota
    assert not caught.value.namespace_is_terminating


async def test_a_dying_namespace_is_told(gateway: Gateway, control_plane: Cluster) -> None:
    name = f"t-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", name)
    held = config_map(name, "held", metadata={"finalizers": ["gateway.test/held"]})
    found = (await gateway.apply(held, force=True))["metadata"]
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
    with pytest.raises(errors.ForbiddenError) as caught:
        await gateway.apply(config_map(name, "new"), force=True)
    assert caught.value.namespace_is_terminating
    assert not caught.value.is_quota
    await gateway.delete(CONFIG_MAPS, name, "held", uid=found["uid"], resource_version=None)
    await gateway.merge_patch(CONFIG_MAPS, name, "held", {"metadata": {"finalizers": None}})


async def test_too_many_requests_are_sent_again_when_the_server_says(
    proxy: FaultProxy, proxied: Gateway, namespace: str
) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    with proxy.fail(429, method="POST", path="/configmaps", times=2, retry_after=0.3) as fault:
        await proxied.create(config_map(namespace))
    assert fault.hits == 2
    assert loop.time() - started >= 0.6
    assert len([request for request in proxy.requests if request.method == "POST"]) == 3


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_cut_connection_is_no_failure_for_an_apply(
    proxy: FaultProxy, proxied: Gateway, namespace: str, after: bool
) -> None:
    with proxy.cut(method="PATCH", times=2, after=after) as fault:
        assert (await proxied.apply(config_map(namespace, x="1"), force=True))["data"] == {"x": "1"}
    assert fault.hits == 2


async def test_a_guarded_apply_whose_answer_was_lost_is_decided_anew(
    proxy: FaultProxy, proxied: Gateway, namespace: str
) -> None:
    found = (await proxied.apply(config_map(namespace, x="1"), force=True))["metadata"]
    guard = {key: found[key] for key in ("uid", "resourceVersion")}
    with proxy.cut(method="PATCH", times=1, after=True), pytest.raises(errors.ResourceVersionConflictError):
        await proxied.apply(config_map(namespace, x="2", metadata=guard), force=True)
    assert (await proxied.get(CONFIG_MAPS, namespace, "a"))["data"] == {"x": "2"}


async def test_a_create_whose_answer_was_lost_is_not_sent_again(
    proxy: FaultProxy, proxied: Gateway, namespace: str
) -> None:
    with proxy.cut(method="POST", after=True) as fault, pytest.raises(errors.UnavailableError):
        await proxied.create(config_map(namespace))
    assert fault.hits == 1
    assert await proxied.get(CONFIG_MAPS, namespace, "a")


async def test_a_delete_whose_answer_was_lost_finds_it_gone(
    proxy: FaultProxy, proxied: Gateway, namespace: str
) -> None:
    found = (await proxied.apply(config_map(namespace), force=True))["metadata"]
    with proxy.cut(method="DELETE", times=1, after=True):
        assert await proxied.delete(CONFIG_MAPS, namespace, "a", uid=found["uid"], resource_version=None) is False


async def test_a_server_that_is_away_for_a_while_is_waited_for(
    proxy: FaultProxy, proxied: Gateway, namespace: str
) -> None:
    with proxy.fail(503, times=5):
        await proxied.apply(config_map(namespace), force=True)


async def test_an_account_with_a_token_and_few_rights(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    kubeconfig = control_plane.token_kubeconfig(namespace, "default", tmp_path / "account")
    client = await connect(kubeconfig)
    with pytest.raises(errors.ForbiddenError) as caught:
        await Gateway(client).list(MODELS, namespace=namespace)
    assert not caught.value.is_quota
    assert (await credentials_for_kopf(client)).scheme == "Bearer"
    await client.close()


async def test_kopf_logs_in_with_the_same_client_certificate(control_plane: Cluster) -> None:
    client = await connect(control_plane.kubeconfig)
    info = await credentials_for_kopf(client)
    connector = aiohttp.TCPConnector(ssl=info.as_ssl_context())
    url = f"{info.server}/api/v1/namespaces/default"
    async with aiohttp.ClientSession(connector=connector, headers=info.as_http_headers()) as session:
        assert (await session.get(url)).status == 200
    await client.close()


async def watch(proxy: FaultProxy, namespace: str) -> AsyncIterator[dict[str, Any]]:
    url = f"http://127.0.0.1:{proxy.port}{CONFIG_MAPS.path(namespace)}?watch=1"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        async for line in answer.content:
            yield json.loads(line)


async def test_the_proxy_passes_watches_as_streams_and_breaks_them(
    proxy: FaultProxy, gateway: Gateway, namespace: str
) -> None:
    """The proxy itself: events arrive while the watch is open; held, they wait; at the end an ERROR, or a cut."""

    async def seen(events: AsyncIterator[dict[str, Any]], name: str) -> None:
        async for event in events:
            if event["object"]["metadata"]["name"] == name:
                return
        raise AssertionError("the watch ended")

    async with asyncio.timeout(20):
        events = watch(proxy, namespace)
        await gateway.apply(config_map(namespace, "one"), force=True)
        await seen(events, "one")
        assert proxy.hold_watches("/configmaps") == 1
        await gateway.apply(config_map(namespace, "two"), force=True)
        held = asyncio.ensure_future(seen(events, "two"))
        done, _ = await asyncio.wait({held}, timeout=0.3)
        assert not done
        assert proxy.resume_watches() == 1
        await held
        assert proxy.watch_error(410) == 1
        last = [event async for event in events]
        assert [(event["type"], event["object"]["code"]) for event in last] == [("ERROR", 410)]
        events = watch(proxy, namespace)
        await seen(events, "one")
        assert proxy.cut_watches() == 1
        with pytest.raises(aiohttp.ClientError):
            async for _ in events:
                pass
        assert proxy.watches() == []


WIDGET_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.gateway.test"},
    "spec": {
        "group": "gateway.test",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"x": {"type": "integer"}}},
                            "status": {"type": "object", "properties": {"z": {"type": "integer"}}},
                        },
                    }
                },
            }
        ],
    },
}
