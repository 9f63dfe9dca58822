"""Kubernetes Events on Models, ModelCaches and orphans: one object per kind of news, counted when it repeats."""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from berth.api.base import API_VERSION
from berth.cluster import resources
from berth.cluster.errors import ApiError, FencedError, NotFoundError
from berth.cluster.gateway import Gateway
from berth.planning.plan import Note
from berth.planning.redaction import redact
from berth.planning.times import format_time

logger = logging.getLogger(__name__)
_REMEMBERED = 4096
_LONGEST_MESSAGE = 1024  # the API server refuses more
_NO_NAMESPACE = "default"  # where the API server wants Events about what has none


class Regarding(Protocol):
    """What an Event is about: a Model, or anything else that is known of an object."""

    @property
    def kind(self) -> str:
        """Its kind."""

    @property
    def namespace(self) -> str:
        """Where it is; empty for what has no namespace."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def uid(self) -> str:
        """Its uid."""

    @property
    def resource_version(self) -> str:
        """The version that the news is about."""


@dataclass(slots=True)
class _Told:
    count: int


class EventRecorder:
    """Writes Events; a failure to do so is logged and never stops the work."""

    def __init__(self, gateway: Gateway, component: str, instance: str, clock: Callable[[], datetime]) -> None:
        self._gateway, self._component, self._instance, self._clock = gateway, component, instance, clock
        self._told: OrderedDict[str, _Told] = OrderedDict()

    async def record(self, subject: Regarding, note: Note, api_version: str = API_VERSION) -> None:
        """Tell the note about the object. The same news again raises the count of the Event that exists."""
        message = redact(note.message)[:_LONGEST_MESSAGE]
        digest = hashlib.sha256(f"{subject.uid}/{note.reason}/{message}".encode()).hexdigest()[:16]
        name = f"{subject.name}.{digest}"
        namespace = subject.namespace or _NO_NAMESPACE
        moment = format_time(self._clock())
        try:
            told = self._told.get(name)
            if told is not None:
                told.count += 1
                try:
                    await self._gateway.merge_patch(
                        resources.EVENTS,
                        namespace,
                        name,
                        {"count": told.count, "lastTimestamp": moment},
                    )
                    return
                except NotFoundError:
                    told.count = 1  # the API server keeps Events for an hour
            event = self._event(subject, api_version, note, message, moment)
            event["metadata"] = {"name": name, "namespace": namespace}
            await self._gateway.apply(event, force=True)
            self._told[name] = _Told(1)
            while len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
        except (ApiError, FencedError) as error:
            logger.warning(
                "event %s for %s %s/%s was not written: %s",
                note.reason,
                subject.kind,
                subject.namespace,
                subject.name,
                error,
            )

    def _event(self, subject: Regarding, api_version: str, note: Note, message: str, moment: str) -> dict[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "involvedObject": {
                "apiVersion": api_version,
                "kind": subject.kind,
                "name": subject.name,
                **({"namespace": subject.namespace} if subject.namespace else {}),
                "uid": subject.uid,
                "resourceVersion": subject.resource_version,
            },
            "type": note.type,
            "reason": note.reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
