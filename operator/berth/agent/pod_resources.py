"""kubelet's PodResources API: which container was given which device.

gRPC over a socket of the node. grpclib speaks it in Python; grpcio would be 18 MB of the image for one call without
arguments. The messages are described here as k8s.io/kubelet/pkg/apis/podresources/v1/api.proto has them, as far as
they are read; other fields are skipped, so newer kubelets are understood as well.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from berth.agent.readings import Holder

logger = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds that kubelet may take to answer."""

DRA_DRIVER = "gpu.nvidia.com"

_PACKAGE = "v1"
_FIELDS: dict[str, dict[str, tuple[int, str, bool]]] = {
    # message: field: number, type ("" for text), whether repeated
    "ListPodResourcesRequest": {},
    "ListPodResourcesResponse": {"pod_resources": (1, "PodResources", True)},
    "PodResources": {
        "name": (1, "", False),
        "namespace": (2, "", False),
        "containers": (3, "ContainerResources", True),
    },
    "ContainerResources": {
        "name": (1, "", False),
        "devices": (2, "ContainerDevices", True),
        "dynamic_resources": (5, "DynamicResource", True),
    },
    "ContainerDevices": {"resource_name": (1, "", False), "device_ids": (2, "", True)},
    "DynamicResource": {"claim_resources": (4, "ClaimResource", True)},
    "ClaimResource": {"driver_name": (2, "", False), "device_name": (4, "", False)},
}


def _messages() -> dict[str, Any]:
    """The classes of the messages above."""
    file = descriptor_pb2.FileDescriptorProto(name="podresources/v1/api.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            field = described.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            field.type = field.TYPE_MESSAGE if kind else field.TYPE_STRING
            if kind:
                field.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()  # one of our own: `v1` is a common name
    pool.Add(file)
    return {
        message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{message}"))
        for message in _FIELDS
    }


MESSAGES = _messages()


class KubeletSilentError(Exception):
    """kubelet does not say who holds what. The message says why."""


class PodResources:
    """kubelet's answers. Keeps one connection, and makes it anew when kubelet was restarted."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel: Channel | None = None

    async def held(self) -> list[tuple[Holder, str]]:
        """Containers and the devices that they were given, as kubelet names those. Raises KubeletSilentError."""
        if self._channel is None:
            self._channel = Channel(path=str(self._socket))
        ask = UnaryUnaryMethod[Any, Any](
            self._channel,
            f"/{_PACKAGE}.PodResourcesLister/List",
            MESSAGES["ListPodResourcesRequest"],
            MESSAGES["ListPodResourcesResponse"],
        )
        try:
            answer = await ask(MESSAGES["ListPodResourcesRequest"](), timeout=TIMEOUT)
        except (TimeoutError, OSError, GRPCError, ProtocolError, StreamTerminatedError) as error:
            self.close()
            raise KubeletSilentError(f"kubelet does not answer at {self._socket}: {_words(error)}") from error
        return list(holders_of(answer))

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            with contextlib.suppress(Exception):
                self._channel.close()
            self._channel = None


def holders_of(answer: Any) -> Iterator[tuple[Holder, str]]:
    """Containers and the devices that an answer gives them."""
    for pod in answer.pod_resources:
        for container in pod.containers:
            holder = Holder(pod.namespace, pod.name, container.name)
            for devices in container.devices:
                for device in devices.device_ids:
                    yield holder, device
            for resource in container.dynamic_resources:
                for claim in resource.claim_resources:
                    if claim.driver_name == DRA_DRIVER:
                        yield holder, claim.device_name


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
