"""The chart through a real Helm: it lints, renders documents Kubernetes' own schemas accept, and refuses nonsense.

There is no cluster here: what that leaves unverified is said in docs/kubernetes.md.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from helm_cli import CHART, POD_KINDS, VALUES, Document, Helm, named, pod, pods
from places import ROOT

from k2d.inference import address
from k2d.settings import PREFIX, Settings, load

ROOMS = {
    *("image", "auth", "store", "volume", "redis", "externalSecret", "persistence", "api", "service", "ingress", "pdb"),
    *("worker", "autoscaling", "teacher", "validator", "trainer", "output", "cache", "serviceAccount"),
    *("networkPolicy", "monitoring", "serviceMonitor", "prometheusRule", "dashboards"),
}
TRIAL: Document = {"auth": {"token": "trial-trial-trial"}, "redis": {"password": "trial"}}
CUSTOM = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}  # not Kubernetes' own: checked by hand, see the docs
# what the chart sets itself: a value under `settings` would contradict it
OWN_SETTINGS = {"store", "redis_url", "api_url", "cache", "teacher", "validator", "host", "port", "api_token"} | {
    "threads",
    "device",
    "openai_api_keys",  # a secret, which has no place in a ConfigMap
}


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_lints(helm: Helm, values: Path) -> None:
    done = helm.run("lint", str(CHART), "--strict", values=values)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", ["1.27", "1.37"])
def test_documents_fit_kubernetes_schemas(documents: list[Document], version: str) -> None:
    for document in documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_field_would_be_seen(helm: Helm) -> None:
    document = named(helm.template(TRIAL), "Deployment", "t-k2d-api")
    document["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "redis.password is missing"),
        ({"redis": {"password": "p@ss/word"}}, "redis/password"),
        ({"redis": {"enabled": False}}, "externalSecret"),
        ({"worker": {"replica": 3}}, "replica"),
        ({"settings": {"langauge": "auto"}}, "langauge"),
        ({"settings": {"teacher": "x"}}, "teacher"),
        ({"settings": {"batch_size": 1000}}, "batch_size"),
        ({"auth": {"token": ""}}, "no key"),
        ({"auth": {"token": "short"}}, "16"),
        (
            {"auth": {"token": ""}, "settings": {"allow_anonymous": True}, "api": {"ingress": {"enabled": True}}},
            "anybody",
        ),
        ({"validator": {"enabled": True}}, "validator.model"),
        ({"teacher": {"enabled": False}}, "teacher.address"),
        ({"teacher": {"enabled": False, "address": "teacher:8000"}}, "address"),
        ({"teacher": {"host": "torchserve"}}, "host"),
        ({"teacher": {"replicas": 0}}, "replicas"),
        ({"worker": {"autoscaling": {"enabled": True, "source": "prometheus"}}}, "prometheusAddress"),
        ({"worker": {"autoscaling": {"minReplicas": 9}}}, "minReplicas"),
        ({"worker": {"terminationGracePeriodSeconds": 5}}, "terminationGracePeriodSeconds"),
        ({"trainer": {"enabled": True}}, "trainer.dataset"),
        ({"trainer": {"recipe": {"learning_rat": 0.1}}}, "learning_rat"),
        ({"trainer": {"recipe": {"temperature": 0}}}, "temperature"),
        ({"trainer": {"run": "../elsewhere"}}, "run"),
        ({"store": {"url": "bucket/prefix"}}, "url"),
    ],
)
def test_nonsense_is_refused_before_anything_is_installed(helm: Helm, values: Document, says: str) -> None:
    assert says in helm.refusal(values if values == {} or "redis" in values else TRIAL | values)


def test_the_schema_knows_every_setting() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text("utf-8"))
    known = schema["$defs"]["settings"]["properties"]
    assert set(known) == set(Settings.model_fields) - OWN_SETTINGS
    for name, field in Settings.model_json_schema()["properties"].items():
        limits = {key: field[key] for key in ("minimum", "maximum", "exclusiveMinimum", "pattern") if key in field}
        assert name in OWN_SETTINGS or limits.items() <= known[name].items(), name


def test_the_readme_names_every_value_and_no_other() -> None:
    """Rooms are the objects whose members are ours; other objects are Kubernetes' and count as one value."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    readme = (CHART / "README.md").read_text("utf-8")

    def leaves(values: Document, path: str) -> Iterator[str]:
        for key, value in values.items():
            room = key in ROOMS and (path == "" or key != "image")
            yield from leaves(value, f"{path}{key}.") if room else [f"{path}{key}"]

    expected = {leaf.replace("validator.", "teacher.") for leaf in leaves(defaults, "")}
    table = "\n".join(line.split("|")[1] for line in readme.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([^`]+)`", table)) == expected | {"worker.pdb.enabled", "worker.pdb.maxUnavailable"}


def test_settings_are_what_k2d_takes(documents: list[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of each container, loaded as the process in it would load them."""
    for name, template in pods(documents):
        for container in template["spec"]["containers"]:
            variables = {entry["name"]: entry.get("value", "7") for entry in container.get("env", [])}
            assert len(variables) == len(container.get("env", [])), f"{name}: a variable is set twice"
            with monkeypatch.context() as patch:
                for variable, value in variables.items():
                    if variable.startswith(PREFIX):
                        patch.setenv(variable, value)
                load()


def test_workers_call_each_server_by_its_own_name(documents: list[Document]) -> None:
    """A pod of a StatefulSet has the name POD.SERVICE where SERVICE is the headless service it names."""
    sets = [
        d for d in documents if d["kind"] == "StatefulSet" and d["metadata"]["name"].endswith(("teacher", "validator"))
    ]
    worker = next(d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"].endswith("-worker"))
    variables = {e["name"]: e.get("value") for e in pod(worker)["spec"]["containers"][0]["env"]}
    for servers in sets:
        name = servers["metadata"]["name"]
        headless = named(documents, "Service", servers["spec"]["serviceName"])
        assert headless["spec"]["clusterIP"] == "None"
        role = name.rsplit("-", 1)[1]
        grpc = any(port["name"] == "grpc" for port in headless["spec"]["ports"])
        pattern = "grpc://{}.{}:8001/" + role if grpc else "http://{}.{}:8000"
        expected = [
            pattern.format(f"{name}-{pod}", headless["metadata"]["name"]) for pod in range(servers["spec"]["replicas"])
        ]
        assert list(address.split(variables[f"K2D_{role.upper()}"])) == expected


def test_pods_are_locked_down(documents: list[Document]) -> None:
    for name, template in pods(documents):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, f"{name}: K2D_…_PORT variables would be refused"
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            writable = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in writable


def test_nothing_is_named_that_is_not_there(documents: list[Document]) -> None:
    """Selectors find pods, ports exist, volumes are declared, claims and service accounts exist or are the user's."""
    templates = dict(pods(documents))
    labels = [template["metadata"]["labels"] for template in templates.values()]
    claims = {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"} | {"lake"}
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"} | {"default", None}
    for document in documents:
        name, spec = document["metadata"]["name"], document.get("spec", {})
        selector = {"Service": spec.get("selector")}.get(document["kind"]) or (
            spec.get("podSelector") if document["kind"] == "NetworkPolicy" else spec.get("selector") or {}
        ).get("matchLabels")
        if selector and document["kind"] != "ServiceMonitor":
            assert any(selector.items() <= each.items() for each in labels), f"{document['kind']} {name} finds no pod"
    for name, template in templates.items():
        spec = template["spec"]
        assert spec.get("serviceAccountName") in accounts, name
        volumes = {volume["name"] for volume in spec["volumes"]}
        own = next(d for d in documents if d["kind"] in POD_KINDS and d["metadata"]["name"] == name)["spec"]
        volumes |= {claim["metadata"]["name"] for claim in own.get("volumeClaimTemplates", [])}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes, name
        used = {v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v}
        assert used <= claims, name


def test_alerts_and_dashboard_in_the_cluster_are_those_of_compose(helm: Helm) -> None:
    documents = helm.template(CHART / "ci" / "gpu.yaml")
    monitoring = ROOT / "deploy" / "monitoring"
    rule = named(documents, "PrometheusRule", "t-k2d")
    assert rule["spec"] == yaml.safe_load((monitoring / "alerts.yml").read_text("utf-8"))
    dashboard = named(documents, "ConfigMap", "t-k2d-dashboard")
    assert dashboard["data"]["k2d.json"] == (monitoring / "grafana" / "dashboards" / "k2d.json").read_text("utf-8")
