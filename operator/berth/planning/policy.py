"""How patient Berth is: the operator's settings that decisions depend on."""

from dataclasses import dataclass, field
from enum import StrEnum

from berth.planning.render_settings import RenderSettings


class OrphansPolicy(StrEnum):
    """What becomes of orphans."""

    REPORT = "Report"
    DELETE = "Delete"


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits in seconds, unless said otherwise. The defaults are those of the operator's flags."""

    render: RenderSettings = field(default_factory=RenderSettings)
    crash_budget: int = 5
    """Failures in a row until a Model is Failed: restarts of its server, and Pods that were lost as a whole."""
    crash_run: float = 3600
    """A run at least this long is no part of a crash loop; a Model that is Ready so long gets its budget back."""
    startup_budget: int = 2
    """How often a server may run into health.startupTimeout: each time, a GPU is held for all of it."""
    pod_retry_first: float = 30
    """Time from the second Pod in a row that is lost to the next one; it doubles with each, up to the longest."""
    pod_retry_longest: float = 600
    exclusion: float = 1800
    """How long a node that failed a Model is avoided."""
    most_excluded: int = 3
    """Nodes that one Model may avoid at a time."""
    start_patience: float = 60
    """How long a node may fail to start a container until that is blamed on the node."""
    elsewhere_patience: float = 60
    """How long a Pod may find no other node until those that are avoided are allowed again."""
    image_pull_patience: float = 600
    """How long an image may fail to be pulled until the Model is Failed."""
    config_patience: float = 300
    """How long a Secret or ConfigMap may be missing until the Model is Failed."""
    first_status_patience: float = 30
    """How long nothing but `Pending`, the default of the CRD, is shown when there is nothing more to say."""
    message_interval: float = 30
    """Least time between status writes that change nothing but the words of a message."""
    progress_interval: float = 2
    """Least time between status writes that change nothing but how far a download is."""
    retry_first: float = 30
    """Time until a download that failed of something passing is tried again; it doubles with each failure."""
    retry_longest: float = 600
    """The longest such time, and the first one after a failure that a person has to mend."""
    retry_final_longest: float = 3600
    """The longest time until a download is tried again that a person has to mend."""
    orphans: OrphansPolicy = OrphansPolicy.REPORT
    """What becomes of objects that Berth made and that belong to nobody."""
    orphans_grace: float = 300
    """How long something has to belong to nobody to be called an orphan."""
    refusal_interval: float = 30
    """Time until something that the API server refused is tried again."""
