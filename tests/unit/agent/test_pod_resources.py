"""How kubelet's PodResources are read. The server here speaks gRPC with the same library; a real kubelet is asked in
tests/integration/test_agent_on_a_node.py."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from berth.agent.pod_resources import MESSAGES, KubeletSilentError, PodResources
from berth.agent.readings import Holder


class Kubelet:
    """Answers with `pods`, or refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer = MESSAGES["ListPodResourcesResponse"]()
        self.refuses = False
        self._server: Server | None = None

    def add(self, namespace: str, pod: str, container: str, *devices: str, dra: dict[str, str] | None = None) -> None:
        added = self.answer.pod_resources.add(name=pod, namespace=namespace).containers.add(name=container)
        if devices:
            added.devices.add(resource_name="nvidia.com/gpu", device_ids=devices)
        for driver, device in (dra or {}).items():
            added.dynamic_resources.add().claim_resources.add(driver_name=driver, device_name=device)

    def __mapping__(self) -> dict[str, Handler]:
        request, response = MESSAGES["ListPodResourcesRequest"], MESSAGES["ListPodResourcesResponse"]
        return {"/v1.PodResourcesLister/List": Handler(self._list, Cardinality.UNARY_UNARY, request, response)}

    async def _list(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        if self.refuses:
            raise GRPCError(Status.UNAVAILABLE, "not yet")
        await stream.send_message(self.answer)

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = Server([self])
        await self._server.start(path=str(self.path))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Kubelet]:
    made = Kubelet(tmp_path / "kubelet.sock")
    yield made
    await made.stop()


@pytest.fixture
async def client(kubelet: Kubelet) -> AsyncIterator[PodResources]:
    made = PodResources(kubelet.path)
    yield made
    made.close()


async def test_containers_and_their_devices(kubelet: Kubelet, client: PodResources) -> None:
    kubelet.add("team", "chat", "server", "GPU-a", "GPU-b")
    kubelet.add("team", "web", "nginx")
    kubelet.add("team", "code", "server", dra={"gpu.nvidia.com": "gpu-2", "other.example": "gpu-3"})
    await kubelet.start()
    chat, code = Holder("team", "chat", "server"), Holder("team", "code", "server")
    assert await client.held() == [(chat, "GPU-a"), (chat, "GPU-b"), (code, "gpu-2")]


async def test_a_kubelet_that_is_not_there_is_silent_and_then_heard(kubelet: Kubelet, client: PodResources) -> None:
    with pytest.raises(KubeletSilentError, match=r"kubelet\.sock"):
        await client.held()
    await kubelet.start()
    assert await client.held() == []


async def test_a_kubelet_that_refuses_is_silent(kubelet: Kubelet, client: PodResources) -> None:
    kubelet.refuses = True
    await kubelet.start()
    with pytest.raises(KubeletSilentError, match="not yet"):
        await client.held()


async def test_a_kubelet_that_was_restarted_is_heard_again(kubelet: Kubelet, client: PodResources) -> None:
    await kubelet.start()
    assert await client.held() == []
    await kubelet.stop()
    kubelet.add("team", "chat", "server", "GPU-a")
    await kubelet.start()
    assert await client.held() == [(Holder("team", "chat", "server"), "GPU-a")]


def test_fields_that_are_not_known_here_are_skipped() -> None:
    newer = b"\x0a\x0e\x0a\x04chat\x12\x04team\x78\x05" + b"\x50\x01"
    answer = MESSAGES["ListPodResourcesResponse"].FromString(newer)
    assert [(pod.namespace, pod.name) for pod in answer.pod_resources] == [("team", "chat")]
