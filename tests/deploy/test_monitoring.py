"""Alert rules and dashboard: they name only what exists, and promtool tries them on made-up histories."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT
from promql import metrics, queries

from k2d import errors
from k2d.settings import load
from services.filter import queue_metrics as _labeling  # noqa: F401 — registers its metrics
from services.filter.app import create_app as labeling_app
from services.filter.queue import QUEUES
from services.inference import batch_metrics as _inference  # noqa: F401
from services.web.request_metrics import REGISTRY

MONITORING = ROOT / "deploy" / "monitoring"
RULES = MONITORING / "alerts.yml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "k2d.json").read_text("utf-8"))
QUERIES = [(rule["alert"], rule["expr"]) for rule in ALERTS] + queries(DASHBOARD)

AT = "145m"  # into a history, when an alert is looked for
# what others export. Triton: its user guide's metrics page, found again in the binary of 24.10
ELSEWHERE = {
    "up",
    *("nv_inference_request_success", "nv_inference_request_failure", "nv_inference_pending_request_count"),
    *("nv_inference_queue_duration_us", "nv_inference_compute_infer_duration_us"),
    *("nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"),
    *("kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"),
    *("node_filesystem_avail_bytes", "node_filesystem_size_bytes"),
}


def exported() -> dict[str, set[str]]:
    """Every series name our processes can export, with its own label names."""
    names: dict[str, set[str]] = {}
    for family in REGISTRY.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        labels = {label for sample in family.samples for label in sample.labels}
        for suffix in suffixes:
            names[family.name + suffix] = labels
    return names


def codes() -> set[str]:
    return {error.code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "code")}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The values that a query may match, by label."""
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    api = labeling_app(load(store=str(tmp_path_factory.mktemp("lake"))))
    return {
        "job": {job["job_name"] for job in scraped},
        "queue": set(QUEUES),
        "route": set(api.openapi()["paths"]),
        "reason": codes(),
        "status": {"500", "502", "503", "504", "5.."},
    }


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_queries_name_what_exists(title: str, query: str, known: dict[str, set[str]]) -> None:
    read = metrics(query)
    assert read, "no metric found in it"
    assert set(read) <= set(exported()) | ELSEWHERE
    for name, matchers in read.items():
        for label, operator, value in matchers:
            values = value.split("|") if "~" in operator else [value]
            assert name in ELSEWHERE - {"up"} or set(values) <= known[label], (name, label, values)


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = set().union(*(metrics(query) for _, query in queries(DASHBOARD)))
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported() if name.startswith("k2d_")}
    assert ours - {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} == set()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "meaning", "action"}
    assert all(text.strip() for text in rule["annotations"].values())
    for variable in re.findall(r"\bK2D_[A-Z_]+\b", " ".join(rule["annotations"].values())):
        assert variable.removeprefix("K2D_").lower() in type(load()).model_fields or variable == "K2D_"


# ---- promtool -----------------------------------------------------------------------------------------------------


def promtool(*arguments: str) -> str:
    """Run Prometheus' checker; its output. Skipped where it is not installed, except in CI."""
    binary = shutil.which("promtool")
    if binary is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no promtool on PATH (apt install prometheus)")
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_the_scrape_configuration() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", str(RULES))
    promtool("check", "config", str(MONITORING / "prometheus.yml"))


def history(series: dict[str, str | None], **tests: Any) -> dict[str, Any]:
    given = [{"series": name, "values": values} for name, values in series.items() if values is not None]
    return {"interval": "1m", "input_series": given, **tests}


def firing(case: dict[str, Any]) -> dict[str, Any]:
    """What promtool is to expect of a case: the alert as it reaches whoever is on call."""
    rule = next(rule for rule in ALERTS if rule["alert"] == case["fires"])
    expected = {
        "exp_labels": rule["labels"] | case.get("labels", {}),
        "exp_annotations": rule["annotations"] | {"summary": case["summary"]},
    }
    return {"eval_time": AT, "alertname": rule["alert"], "exp_alerts": [expected]}


def test_each_alert_fires_in_its_own_trouble_and_none_when_all_is_well(tmp_path: Path) -> None:
    document = yaml.safe_load(Path(__file__).with_name("alert_cases.yml").read_text("utf-8"))
    cases = document["cases"]
    assert {case["fires"] for case in cases} == {rule["alert"] for rule in ALERTS}
    silence = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": AT, "exp_samples": []}
    tests = [history(document["well"], name="all is well", promql_expr_test=[silence])]
    tests += [
        history(document["well"] | case["change"], name=case["name"], alert_rule_test=[firing(case)]) for case in cases
    ]
    path = tmp_path / "alerts_test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": tests}), "utf-8")
    promtool("test", "rules", str(path))


def test_every_panel_shows_something(tmp_path: Path) -> None:
    """Each query, evaluated on series of the metrics it names: it parses, its labels match, and it is not empty."""
    values = {"queue": QUEUES, "job": ["api", "teacher"], "reason": ["overloaded"], "le": ["1", "16", "+Inf"]}
    own = exported()
    series = []
    for name in sorted(set().union(*(metrics(query) for _, query in queries(DASHBOARD)))):
        labels = {"job": ["teacher"], "instance": ["a:1"], "model": ["teacher"], "gpu_uuid": ["g"], "route": ["/v1/x"]}
        labels |= {label: values.get(label, ["x"]) for label in sorted(own.get(name, set())) if label not in labels}
        if name.endswith("_bucket"):
            labels["le"] = values["le"]
        combinations = [""]
        for label, choices in labels.items():
            combinations = [f'{done},{label}="{value}"' for done in combinations for value in choices]
        series += [{"series": f"{name}{{{each[1:]}}}", "values": "1+1x30"} for each in combinations]
    tests = [
        {"expr": f"count({query}) > bool 0", "eval_time": "20m", "exp_samples": [{"labels": "{}", "value": 1}]}
        for _, query in queries(DASHBOARD)
    ]
    document = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]}
    path = tmp_path / "panels_test.yml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    promtool("test", "rules", str(path))


# ---- Grafana ------------------------------------------------------------------------------------------------------


def test_panels_have_a_place_each_and_say_what_they_show() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource"]


def test_compose_mounts_what_grafana_is_told_to_read() -> None:
    provider = yaml.safe_load((MONITORING / "grafana" / "provisioning" / "dashboards" / "k2d.yml").read_text("utf-8"))
    source = yaml.safe_load(
        (MONITORING / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text("utf-8")
    )
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    folder = provider["providers"][0]["options"]["path"]
    assert f"./deploy/monitoring/grafana/dashboards:{folder}:ro" in services["grafana"]["volumes"]
    assert "./deploy/monitoring/grafana/provisioning:/etc/grafana/provisioning:ro" in services["grafana"]["volumes"]
    assert "./deploy/monitoring/alerts.yml:/etc/k2d/alerts.yml:ro" in services["prometheus"]["volumes"]
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
