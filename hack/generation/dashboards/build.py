"""What all dashboards have in common: panels as Grafana's classic JSON model has them, and their places.

Sections are rows of panels, each with its width out of 24 columns; places follow. The data source is a variable.
"""

import json
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

SCHEMA_VERSION = 41  # Grafana 12; newer ones migrate it when they load it
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
PHASES = {
    "Ready": "green",
    "Updating": "blue",
    "Loading": "yellow",
    "Queued": "orange",
    "Provisioning": "purple",
    "Pending": "light-purple",
    "Draining": "light-blue",
    "Stopped": "gray",
    "Degraded": "light-red",
    "Failed": "red",
}


@dataclass(frozen=True)
class Query:
    """A question to Prometheus, and the name of each answer."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel; `width` is out of 24 columns."""

    type: str
    title: str
    description: str
    queries: tuple[Query, ...]
    width: int
    unit: str = "short"
    defaults: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    options: Json = field(default_factory=dict)
    target: Json = field(default_factory=dict)
    more: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """Panels below one title, as high as each other."""

    title: str
    panels: tuple[Panel, ...]
    height: int = 8


@dataclass(frozen=True)
class Dashboard:
    """A dashboard. `name` is that of its file."""

    name: str
    title: str
    description: str
    sections: tuple[Section, ...]
    variables: tuple[Json, ...] = ()
    since: str = "now-6h"


def lines(
    title: str, description: str, *queries: Query, width: int = 8, unit: str = "short", stack: bool = False, **more: Any
) -> Panel:
    """Values over time."""
    custom: Json = {"lineWidth": 1, "fillOpacity": 30 if stack else 8, "showPoints": "never", "spanNulls": False}
    custom["stacking"] = {"mode": "normal" if stack else "none", "group": "A"}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults = {"custom": custom, "min": 0, **more.pop("defaults", {})}
    return Panel("timeseries", title, description, queries, width, unit, defaults, options=options, **more)


def number(
    title: str,
    description: str,
    expr: str,
    *,
    width: int = 4,
    unit: str = "short",
    bad_from: float | None = None,
    bad_below: float | None = None,
    none: str = "0",
    legend: str = "",
    **more: Any,
) -> Panel:
    """One number now; red from `bad_from` on, or below `bad_below`. `none` stands for no answer."""
    steps: list[Json] = [{"color": "text", "value": None}]
    if bad_from is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": bad_from}]
    if bad_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": bad_below}]
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": more.pop("text", "auto"),
        "justifyMode": "auto",
        "orientation": "auto",
    }
    empty = {"type": "special", "options": {"match": "null", "result": {"text": none}}}
    defaults = {"thresholds": {"mode": "absolute", "steps": steps}, "mappings": [empty], "noValue": none}
    return Panel(
        "stat",
        title,
        description,
        (Query(expr, legend),),
        width,
        unit,
        defaults,
        options=options,
        target={"instant": True, "range": False},
        **more,
    )


def bars(title: str, description: str, *queries: Query, width: int = 8, unit: str = "short", **more: Any) -> Panel:
    """One bar for each answer now."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "horizontal",
        "displayMode": "basic",
        "showUnfilled": True,
    }
    defaults = {"min": 0, **more.pop("defaults", {})}
    return Panel(
        "bargauge",
        title,
        description,
        queries,
        width,
        unit,
        defaults,
        options=options,
        target={"instant": True, "range": False},
        **more,
    )


def phases(title: str, description: str, query: Query, *, width: int = 24) -> Panel:
    """The phases of Models as coloured stretches of time."""
    options = {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.8,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    defaults = {"custom": {"fillOpacity": 70, "lineWidth": 0}}
    return Panel("state-timeline", title, description, (query,), width, "short", defaults, phase_colours(), options)


def phase_colours() -> tuple[Json, ...]:
    """Each phase in its colour, where the name of an answer ends with it."""
    return tuple(
        {
            "matcher": {"id": "byRegexp", "options": f"/{phase}$/"},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for phase, colour in PHASES.items()
    )


def durations(title: str, description: str, expr: str, *, width: int = 12) -> Panel:
    """A histogram over time."""
    options = {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "cellGap": 1,
        "yAxis": {"axisPlacement": "left", "unit": "s"},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "legend": {"show": True},
    }
    return Panel(
        "heatmap",
        title,
        description,
        (Query(expr, "{{le}}"),),
        width,
        "short",
        options=options,
        target={"format": "heatmap"},
    )


def table(
    title: str,
    description: str,
    *queries: Query,
    columns: dict[str, str],
    width: int = 24,
    overrides: tuple[Json, ...] = (),
) -> Panel:
    """What the answers say now, a line for each set of labels. `columns` renames, in order; others are left out."""
    organize = {
        "renameByName": columns,
        "indexByName": {name: place for place, name in enumerate(columns)},
        "includeByName": dict.fromkeys(columns, True),
    }
    transformations = [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
    return Panel(
        "table",
        title,
        description,
        queries,
        width,
        "short",
        overrides=overrides,
        options={"showHeader": True, "cellHeight": "sm"},
        target={"format": "table", "instant": True, "range": False},
        more={"transformations": transformations},
    )


def column(name: str, **properties: Any) -> Json:
    """How one column of a table is shown."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }


def link(title: str, dashboard: str, **variables: str) -> Json:
    """A link from a value to another dashboard, with the same source and time."""
    asked = "".join(f"&var-{name}={value}" for name, value in variables.items())
    return {"title": title, "url": f"/d/berth-{dashboard}?var-datasource=${{datasource}}{asked}&${{__url_time_range}}"}


def choice(name: str, label: str, metric: str, *, several: bool) -> Json:
    """A variable: the values of a label."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({metric}, {name})", "refId": name},
        "definition": f"label_values({metric}, {name})",
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        **({"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}} if several else {}),
    }


def dashboard_json(dashboard: Dashboard) -> str:
    """The dashboard as a file."""
    panels: list[Json] = []
    y = 0
    for section in dashboard.sections:
        panels.append(_row(section, y))
        y += 1
        x = 0
        for panel in section.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + section.height
            panels.append(_panel(panel, {"x": x, "y": y, "w": panel.width, "h": section.height}))
            x += panel.width
        y += section.height
    for identity, shown in enumerate(panels, 1):
        shown["id"] = identity
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    document = {
        "title": dashboard.title,
        "uid": f"berth-{dashboard.name}",
        "description": dashboard.description,
        "tags": ["berth"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": dashboard.since, "to": "now"},
        "refresh": "30s",
        "links": [
            {
                "title": "Berth",
                "type": "dashboards",
                "tags": ["berth"],
                "asDropdown": False,
                "icon": "dashboard",
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
            }
        ],
        "templating": {"list": [source, *dashboard.variables]},
        "panels": panels,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _row(section: Section, y: int) -> Json:
    place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
    return {"id": 0, "type": "row", "title": section.title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel, place: Json) -> Json:
    targets = [
        {"refId": letter, "datasource": SOURCE, "expr": query.expr, "legendFormat": query.legend} | panel.target
        for letter, query in zip("ABCDEFGH", panel.queries, strict=False)
    ]
    return {
        "id": 0,
        "type": panel.type,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **panel.defaults}, "overrides": list(panel.overrides)},
        "options": panel.options,
        "targets": targets,
        **panel.more,
    }
