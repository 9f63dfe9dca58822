"""How a Model starts, changes, rests and ends."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from berth.api.base import ApiType, Duration, HttpPath, at_least


class DesiredState(StrEnum):
    """What the person wants of the Model."""

    RUNNING = "Running"
    STOPPED = "Stopped"
    ON_DEMAND = "OnDemand"


class RolloutStrategy(StrEnum):
    """How a new generation replaces the old one."""

    AUTO = "Auto"
    SURGE = "Surge"
    IN_PLACE = "InPlace"


class UpgradePolicy(StrEnum):
    """Whether a new version of Berth may restart Pods."""

    MANUAL = "Manual"
    AUTOMATIC = "Automatic"


class Idle(ApiType):
    """When a Model that nobody uses is unloaded."""

    after: Annotated[Duration, at_least("1s", "idle.after")]
    """Unload after this long without requests. What a server does not tell is no idleness."""


class Rollout(ApiType):
    """How changes are rolled out."""

    strategy: RolloutStrategy = RolloutStrategy.AUTO
    """`Auto`: surge when a free GPU fits one more replica, otherwise in place."""
    on_upgrade: UpgradePolicy = UpgradePolicy.MANUAL
    """Whether a new version of Berth may restart Pods; status.upgradeAvailable tells when it would."""


class Health(ApiType):
    """When a server counts as started, ready and alive."""

    path: HttpPath | None = None
    """Path that answers 200 when the server is ready; the backend's own when omitted."""
    warm_time: Duration = "0s"
    """How long a replica has to stay ready before it counts as available."""
    startup_timeout: Annotated[Duration, at_least("1s", "health.startupTimeout")] = "30m"
    """Longest time from the start of the server to its first healthy answer, loading included."""
    period: Annotated[Duration, at_least("1s", "health.period")] = "10s"
    """Time between checks."""
    timeout: Annotated[Duration, at_least("1s", "health.timeout")] = "5s"
    """Longest time for an answer."""
    failure_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """Failed checks in a row until the server is restarted."""


class HttpMethod(StrEnum):
    """Methods of the request that makes a server free its memory."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    DELETE = "DELETE"


class Unload(ApiType):
    """A request that makes a custom server free its GPU memory."""

    method: HttpMethod = HttpMethod.POST
    """HTTP method."""
    path: HttpPath
    """Path of the request."""
    body: Annotated[str, Field(max_length=4096)] | None = None
    """Body, sent as application/json."""


class Shutdown(ApiType):
    """How a server ends: no new requests, then the running ones finish, then it stops."""

    drain_timeout: Duration = "60s"
    """Longest time for running requests to finish."""
    grace_period: Duration = "30s"
    """Longest time for the server to end after that."""
    unload: Unload | None = None
    """Request to a custom server before it ends."""
