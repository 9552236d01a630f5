"""Which metrics and labels a PromQL expression names: enough of its grammar for our rules and dashboards."""

import re
from typing import Any

FUNCTIONS = {
    *(
        "absent",
        "avg",
        "count",
        "count_over_time",
        "delta",
        "histogram_quantile",
        "increase",
        "max",
        "min",
        "rate",
        "sum",
    ),
    *("vector", "label_replace", "clamp_max", "max_over_time"),
}
WORDS = {"and", "or", "unless", "on", "by", "ignoring", "group_left", "group_right", "without", "bool", "offset"}
MATCHER = re.compile(r'([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def metrics(expression: str) -> dict[str, list[tuple[str, str, str]]]:
    """Each metric that is read, with the label matchers on it: name → [(label, operator, value)]."""
    bare = re.sub(r"\b(by|on|ignoring|without|group_left)\s*\([^)]*\)", r"\1", expression)
    found: dict[str, list[tuple[str, str, str]]] = {}
    for match in re.finditer(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}]*)\})?", re.sub(r"\[[^\]]*\]", "", bare)):
        name, matchers = match[1], match[2]
        if name not in FUNCTIONS and name not in WORDS:
            found.setdefault(name, []).extend(MATCHER.findall(matchers or ""))
    return found


def queries(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    """Every panel's title and query, with Grafana's own variables filled in."""
    targets = [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p.get("targets", [])]
    return [(title, expr.replace("$__rate_interval", "5m")) for title, expr in targets]
