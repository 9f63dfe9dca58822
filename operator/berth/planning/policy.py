"""How patient Berth is: the operator's settings that decisions depend on."""

from dataclasses import dataclass, field

from berth.planning.render_settings import RenderSettings


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits in seconds, unless said otherwise. The defaults are those of the operator's flags."""

    render: RenderSettings = field(default_factory=RenderSettings)
    crash_budget: int = 5
    """Restarts in a row until a server that keeps ending is Failed."""
    crash_run: float = 3600
    """A run at least this long is no part of a crash loop."""
    image_pull_patience: float = 600
    """How long an image may fail to be pulled until the Model is Failed."""
    config_patience: float = 300
    """How long a Secret or ConfigMap may be missing until the Model is Failed."""
    first_status_patience: float = 30
    """How long nothing but `Pending`, the default of the CRD, is shown when there is nothing more to say."""
    message_interval: float = 30
    """Least time between status writes that change nothing but the words of a message."""
    refusal_interval: float = 30
    """Time until something that the API server refused is tried again."""
