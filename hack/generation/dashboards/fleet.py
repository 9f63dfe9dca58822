"""All Models at a glance: what serves, what waits, what has failed, and the room that is left."""

from generation.dashboards.build import (
    PHASES,
    Dashboard,
    Panel,
    Query,
    Section,
    bars,
    choice,
    column,
    lines,
    link,
    number,
    phase_colours,
    phases,
    table,
)


def _count(phase: str) -> str:
    return f'count(max by (namespace, model) (berth_model_phase{{namespace=~"$namespace", phase=~"{phase}"}}))'


_TO_MODEL = link("Show the Model", "model", namespace="${__data.fields.Namespace}", model="${__data.fields.Model}")
_COLOURS = {name: {"color": colour, "index": place} for place, (name, colour) in enumerate(PHASES.items())}


def _models() -> Panel:
    here = '{namespace=~"$namespace"}'
    return table(
        "Models",
        "Each Model: its phase and for how long it has been in it, and the requests that run and wait in its servers.",
        Query(f"max by (namespace, model, phase) (berth_model_phase{here})"),
        Query(f"time() - max by (namespace, model, phase) (berth_model_phase_since_timestamp_seconds{here})"),
        Query(
            f"(max by (namespace, model) (berth_model_requests_running{here}) "
            f"+ max by (namespace, model) (berth_model_requests_waiting{here})) "
            f"* on (namespace, model) group_right () max by (namespace, model, phase) (berth_model_phase{here})"
        ),
        columns={
            "namespace": "Namespace",
            "model": "Model",
            "phase": "Phase",
            "Value #B": "For",
            "Value #C": "Requests",
        },
        overrides=(
            column("Model", links=[_TO_MODEL]),
            column(
                "Phase",
                mappings=[{"type": "value", "options": _COLOURS}],
                **{"custom.cellOptions": {"type": "color-text"}},
            ),
            column("For", unit="s", decimals=0),
        ),
    )


_NOW = Section(
    "Now",
    (
        number("Ready", "Models that serve.", _count("Ready"), width=3),
        number(
            "On their way",
            "Models that download, load, change or end.",
            _count("Pending|Provisioning|Loading|Updating|Draining"),
            width=3,
        ),
        number("Queued", "Models that wait for GPUs.", _count("Queued"), width=3),
        number("Stopped", "Models that are not to run.", _count("Stopped"), width=3),
        number("Degraded", "Models some of whose servers are unhealthy.", _count("Degraded"), width=3, bad_from=1),
        number("Failed", "Models that wait for a person.", _count("Failed"), width=3, bad_from=1),
        number(
            "Alerts",
            "Alerts of Berth that fire, where its rules are loaded.",
            'count(ALERTS{alertname=~"Berth.+", alertstate="firing", severity!="info"})',
            width=3,
            bad_from=1,
        ),
        number(
            "Operators that lead",
            "1 for each operator. 0: nobody starts, changes or recovers anything.",
            "sum(berth_leading)",
            width=3,
            bad_below=1,
        ),
    ),
    height=4,
)
_MODELS = Section(
    "Models",
    (
        _models(),
        lines(
            "Models by phase",
            "How many Models of all namespaces are in each phase.",
            Query("sum by (phase) (berth_models)", "{{phase}}"),
            stack=True,
            overrides=phase_colours(),
        ),
        lines(
            "Requests that run",
            "Of the ten Models with the most. Missing where servers do not tell.",
            Query(
                'topk(10, max by (namespace, model) (berth_model_requests_running{namespace=~"$namespace"}))',
                "{{namespace}}/{{model}}",
            ),
        ),
        lines(
            "Requests that wait",
            "Of the ten Models with the most: for these a further replica may help.",
            Query(
                'topk(10, max by (namespace, model) (berth_model_requests_waiting{namespace=~"$namespace"}))',
                "{{namespace}}/{{model}}",
            ),
        ),
        phases(
            "Phases over time",
            "Of the Models that are not simply Ready or Stopped.",
            Query(
                'max by (namespace, model, phase) (berth_model_phase{namespace=~"$namespace", phase!~"Ready|Stopped"})',
                "{{namespace}}/{{model}}: {{phase}}",
            ),
        ),
    ),
    height=9,
)
_QUEUE = Section(
    "The queue for GPUs",
    (
        lines(
            "Models that wait",
            "By reason. Every reason is explained in docs/reference/reasons.md.",
            Query("max by (reason) (berth_capacity_waiting_models) > 0", "{{reason}}"),
            stack=True,
        ),
        lines(
            "Waits that ended",
            "How long Models had waited: half of them, and nine of ten, less than that.",
            Query("histogram_quantile(0.5, sum by (le) (rate(berth_capacity_wait_seconds_bucket[1h])))", "half"),
            Query("histogram_quantile(0.9, sum by (le) (rate(berth_capacity_wait_seconds_bucket[1h])))", "nine of ten"),
            unit="s",
        ),
        lines(
            "Admitted and preempted",
            "Replicas within an hour that were given GPUs, and that had to make way for a higher priority.",
            Query("sum(increase(berth_capacity_admissions_total[1h]))", "admitted"),
            Query("sum(increase(berth_capacity_preemptions_total[1h]))", "preempted"),
        ),
    ),
)
_ROOM = Section(
    "Room",
    (
        bars(
            "GPU memory in use",
            "Of all GPUs of a node together.",
            Query(
                'sum by (node) (max by (node, uuid) (berth_gpu_memory_used_bytes{uuid!~"MIG-.+"})) '
                '/ sum by (node) (max by (node, uuid) (berth_gpu_memory_total_bytes{uuid!~"MIG-.+"}))',
                "{{node}}",
            ),
            unit="percentunit",
            defaults={"max": 1},
        ),
        bars(
            "ModelCaches",
            "What artifacts take of the limit, or of the volume.",
            Query(
                'max by (namespace, cache) (berth_model_cache_used_bytes{namespace=~"$namespace"}) '
                '/ max by (namespace, cache) (berth_model_cache_limit_bytes{namespace=~"$namespace"})',
                "{{namespace}}/{{cache}}",
            ),
            unit="percentunit",
            defaults={"max": 1},
        ),
        bars(
            "Left behind",
            "Objects and GPU processes that belong to nobody: docs/orphans.md.",
            Query("max by (kind) (berth_orphans) > 0", "{{kind}}"),
        ),
    ),
)

FLEET = Dashboard(
    "fleet",
    "Berth / Fleet",
    "All Models: what serves, what waits, what has failed, and the room that is left.",
    (_NOW, _MODELS, _QUEUE, _ROOM),
    (choice("namespace", "Namespace", "berth_model_phase", several=True),),
)
