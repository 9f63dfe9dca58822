"""Kubernetes Events on Models and ModelCaches: one object per kind of news, counted when it repeats."""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from berth.api.base import API_VERSION
from berth.cluster import resources
from berth.cluster.errors import ApiError, FencedError, NotFoundError
from berth.cluster.gateway import Gateway
from berth.planning.redaction import redact
from berth.planning.world import Note, Subject, format_time

logger = logging.getLogger(__name__)
_REMEMBERED = 4096
_LONGEST_MESSAGE = 1024  # the API server refuses more


@dataclass(slots=True)
class _Told:
    count: int


class EventRecorder:
    """Writes Events; a failure to do so is logged and never stops the work."""

    def __init__(self, gateway: Gateway, component: str, instance: str, clock: Callable[[], datetime]) -> None:
        self._gateway, self._component, self._instance, self._clock = gateway, component, instance, clock
        self._told: OrderedDict[str, _Told] = OrderedDict()

    async def record(self, subject: Subject, note: Note) -> None:
        """Tell the note about the Model. The same news again raises the count of the Event that exists."""
        message = redact(note.message)[:_LONGEST_MESSAGE]
        digest = hashlib.sha256(f"{subject.uid}/{note.reason}/{message}".encode()).hexdigest()[:16]
        name = f"{subject.name}.{digest}"
        moment = format_time(self._clock())
        try:
            told = self._told.get(name)
            if told is not None:
                told.count += 1
                try:
                    await self._gateway.merge_patch(
                        resources.EVENTS,
                        subject.namespace,
                        name,
                        {"count": told.count, "lastTimestamp": moment},
                    )
                    return
                except NotFoundError:
                    told.count = 1  # the API server keeps Events for an hour
            await self._gateway.apply(self._event(subject, note.type, note.reason, message, name, moment), force=True)
            self._told[name] = _Told(1)
            while len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
        except (ApiError, FencedError) as error:
            logger.warning(
                "event %s for model %s/%s was not written: %s",
                note.reason,
                subject.namespace,
                subject.name,
                error,
            )

    def _event(
        self, subject: Subject, kind: str, reason: str, message: str, name: str, moment: str
    ) -> dict[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": subject.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": subject.kind,
                "name": subject.name,
                "namespace": subject.namespace,
                "uid": subject.uid,
                "resourceVersion": subject.resource_version,
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
