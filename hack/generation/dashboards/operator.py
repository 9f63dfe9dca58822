"""The operator itself: does it lead, does it keep up, what does the API server say to it."""

from generation.dashboards.build import Dashboard, Query, Section, lines, number


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))"


def _quantile(part: float, metric: str, by: str = "le") -> str:
    return f"histogram_quantile({part}, sum by ({by}) (rate({metric}_bucket[$__rate_interval])))"


def _of_operators(expr: str) -> str:
    """Of all processes, those that are an operator's."""
    return f"{expr} and on (instance) berth_leading"


_NOW = Section(
    "Now",
    (
        number(
            "Operators that lead",
            "1 for each operator. 0: nobody starts, changes or recovers anything.",
            "sum(berth_leading)",
            bad_below=1,
        ),
        number("Standing by", "Pods that take over when the leader is gone.", "count(berth_leading == 0)"),
        number("Keys that wait", "Models, ModelCaches and Nodes to be looked at.", "sum(berth_queue_length)"),
        number(
            "Failures",
            "Reconciliations that failed within an hour.",
            'sum(increase(berth_reconciles_total{result="failed"}[1h]))',
            bad_from=1,
        ),
        number(
            "Stored otherwise",
            "Objects within a day that the API server stored otherwise than they were applied.",
            "sum(increase(berth_unequal_applies_total[1d]))",
            bad_from=1,
        ),
        number(
            "Watches started anew",
            "Within an hour. Each costs a new list of everything.",
            "sum(increase(berth_watch_restarts_total[1h]))",
        ),
    ),
    height=4,
)
_WORK = Section(
    "Reconciliations",
    (
        lines(
            "By result",
            "stale: something changed meanwhile, planned anew. refused: the API server does not want the object. "
            "fenced: the election was uncertain, nothing was written.",
            Query(_rate("berth_reconciles_total", "result"), "{{result}}"),
            unit="ops",
        ),
        lines(
            "Time that they take",
            "Writes included.",
            Query(_quantile(0.5, "berth_reconcile_seconds"), "half"),
            Query(_quantile(0.99, "berth_reconcile_seconds"), "99 of 100"),
            unit="s",
        ),
        lines(
            "Keys that wait", "More than a few for long: it does not keep up.", Query("sum(berth_queue_length)", "keys")
        ),
        lines(
            "Time of a plan for GPUs",
            "One plan over all nodes and Models.",
            Query(_quantile(0.5, "berth_capacity_plan_seconds"), "half"),
            Query(_quantile(0.99, "berth_capacity_plan_seconds"), "99 of 100"),
            unit="s",
        ),
        lines(
            "Seen by sweeps only",
            "Objects that changed or went unseen by the watches, by kind, within an hour. Should be next to none.",
            Query("sum by (kind) (increase(berth_swept_objects_total[1h])) > 0", "{{kind}}"),
        ),
        lines(
            "Transitions",
            "Of Models, by the phase that they came to.",
            Query(_rate("berth_model_transitions_total", "to_phase"), "{{to_phase}}"),
            unit="ops",
        ),
    ),
)
_API = Section(
    "The API server",
    (
        lines(
            "Requests",
            "By verb. A cluster in which nothing changes gets none but those of the Lease.",
            Query(_rate("berth_kubernetes_requests_total", "verb"), "{{verb}}"),
            unit="reqps",
        ),
        lines(
            "Requests that failed",
            "By status; 0 is no answer. 409 is usual: what was decided had become stale.",
            Query(
                'sum by (status) (rate(berth_kubernetes_requests_total{status!~"2.."}[$__rate_interval]))', "{{status}}"
            ),
            unit="reqps",
        ),
        lines(
            "Time of requests",
            "99 of 100 take less, by verb.",
            Query(_quantile(0.99, "berth_kubernetes_request_seconds", "le, verb"), "{{verb}}"),
            unit="s",
        ),
    ),
)
_PROCESS = Section(
    "The process",
    (
        lines(
            "Memory",
            "Resident, of each Pod.",
            Query(_of_operators("process_resident_memory_bytes"), "{{pod}}"),
            unit="bytes",
        ),
        lines(
            "CPU",
            "Cores that are busy, of each Pod. It has one thread: 1 is all that there is.",
            Query(_of_operators("rate(process_cpu_seconds_total[$__rate_interval])"), "{{pod}}"),
        ),
        lines(
            "Tasks",
            "Of the event loop. They do not grow with the number of Models.",
            Query("max by (pod) (berth_asyncio_tasks)", "{{pod}}"),
        ),
    ),
)

OPERATOR = Dashboard(
    "operator",
    "Berth / Operator",
    "The operator itself: does it lead, does it keep up, what does the API server say to it.",
    (_NOW, _WORK, _API, _PROCESS),
)
