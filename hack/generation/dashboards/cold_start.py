"""How long Models take from the wish to run until they answer, and which part of it takes the longest."""

from generation.dashboards.build import Dashboard, Query, Section, bars, durations, lines, number

_PARTS = "provisioning, queued, creating (the Pod), loading"


def _quantile(part: float, metric: str, over: str, by: str = "le") -> str:
    return f"histogram_quantile({part}, sum by ({by}) (increase({metric}_bucket[{over}])))"


def _mean(metric: str, over: str, by: str = "") -> str:
    return f"sum {by}(increase({metric}_sum[{over}])) / sum {by}(increase({metric}_count[{over}]))"


_START, _PART = "berth_model_start_seconds", "berth_model_start_part_seconds"

_WHOLE = Section(
    "The whole start, in the time shown",
    (
        number("Starts", "That ended with a Model that answers.", f"sum(increase({_START}_count[$__range]))"),
        number("Half take less than", "Median.", _quantile(0.5, _START, "$__range"), unit="s", none="no start"),
        number(
            "Nine of ten take less than",
            "90th percentile.",
            _quantile(0.9, _START, "$__range"),
            unit="s",
            none="no start",
        ),
        number("Mean", "All of it divided by all starts.", _mean(_START, "$__range"), unit="s", none="no start"),
        number(
            "Starts that failed",
            "Models that became Failed.",
            'sum(increase(berth_model_transitions_total{to_phase="Failed"}[$__range]))',
            bad_from=1,
        ),
        number(
            "Starting now",
            "Models that download, wait or load.",
            'sum(berth_models{phase=~"Pending|Provisioning|Queued|Loading"})',
        ),
    ),
    height=4,
)
_OVER_TIME = Section(
    "Over time",
    (
        durations(
            "Starts by length",
            "How many starts took how long.",
            f"sum by (le) (increase({_START}_bucket[$__rate_interval]))",
        ),
        lines(
            "Length of starts",
            "Of those that ended within the last hour.",
            Query(_quantile(0.5, _START, "1h"), "half"),
            Query(_quantile(0.9, _START, "1h"), "nine of ten"),
            width=12,
            unit="s",
        ),
    ),
    height=9,
)
_BY_PART = Section(
    "Which part of it",
    (
        bars(
            "Mean of each part",
            f"In the time shown: {_PARTS}.",
            Query(_mean(_PART, "$__range", "by (part) "), "{{part}}"),
            unit="s",
        ),
        lines(
            "Mean of each part over time",
            "Of starts that ended within the last hour.",
            Query(_mean(_PART, "1h", "by (part) "), "{{part}}"),
            unit="s",
            stack=True,
        ),
        lines(
            "Nine of ten take less than",
            "Each part of starts that ended within the last hour.",
            Query(_quantile(0.9, _PART, "1h", "le, part"), "{{part}}"),
            unit="s",
        ),
    ),
)
_DOWNLOADS = Section(
    "Downloads",
    (
        lines(
            "Bytes of ended downloads",
            "Each second, on the mean of the last hour. Counted when a download ends.",
            Query("sum(rate(berth_download_bytes_total[1h]))", "fetched"),
            width=6,
            unit="Bps",
        ),
        lines(
            "Length of downloads",
            "Of those that ended within the last hour.",
            Query(_quantile(0.5, "berth_download_seconds", "1h"), "half"),
            Query(_quantile(0.9, "berth_download_seconds", "1h"), "nine of ten"),
            width=6,
            unit="s",
        ),
        lines(
            "Downloads that failed",
            "Within an hour, by reason: docs/reference/reasons.md.",
            Query('sum by (reason) (increase(berth_downloads_total{result="Failed"}[1h])) > 0', "{{reason}}"),
            width=6,
        ),
        lines(
            "Requests made again",
            "Within an hour, by what went wrong.",
            Query("sum by (reason) (increase(berth_download_retries_total[1h])) > 0", "{{reason}}"),
            width=6,
        ),
    ),
)
_QUEUE = Section(
    "Waits for GPUs",
    (
        lines(
            "How long Models waited",
            "By the reason that ended, of waits that ended within the last hour: nine of ten were shorter.",
            Query(_quantile(0.9, "berth_capacity_wait_seconds", "1h", "le, reason"), "{{reason}}"),
            width=12,
            unit="s",
        ),
        lines(
            "Models that wait",
            "By reason.",
            Query("max by (reason) (berth_capacity_waiting_models) > 0", "{{reason}}"),
            width=12,
            stack=True,
        ),
    ),
)

COLD_START = Dashboard(
    "cold-start",
    "Berth / Cold start",
    "How long Models take from the wish to run until they answer, and which part of it takes the longest.",
    (_WHOLE, _OVER_TIME, _BY_PART, _DOWNLOADS, _QUEUE),
    since="now-24h",
)
