"""What the chart starts, asks and scales on, held against the real thing: Redis, the apps' routes, the gauges."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from helm_cli import CHART, Document, Helm, named, pod, pods
from places import ROOT
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError
from redis.retry import Retry

from k2d.cli.base import app as cli
from k2d.settings import load
from services.commands import serve  # noqa: F401 — registers the commands
from services.filter.app import create_app as labeling_app
from services.filter.queue import CONTROL, LABEL, WorkQueue, request_plan
from services.filter.queue_metrics import exposition
from services.inference.app import create_app as server_app
from services.local.redis_server import find_binary, free_port
from services.tritonserver.foreground import GRPC_PORT, HTTP_PORT, METRICS_PORT
from services.tritonserver.repository import MODELS
from trainer.commands import train  # noqa: F401 — registers the command
from trainer.options import Recipe, load_recipe

GPU, TRITON = CHART / "ci" / "gpu.yaml", CHART / "ci" / "triton.yaml"
START_S = 20.0


def container(documents: list[Document], kind: str, name: str) -> Document:
    found: Document = pod(named(documents, kind, name))["spec"]["containers"][0]
    return found


# ---- probes -------------------------------------------------------------------------------------------------------


def test_probes_ask_paths_that_the_apps_have(documents: list[Document], tmp_path: Path) -> None:
    settings = load(store=str(tmp_path), cache=tmp_path)
    apps = {"api": labeling_app(settings), "teacher": server_app("teacher", settings)}
    paths = {name: set(app.openapi()["paths"]) for name, app in apps.items()}
    for name, template in pods(documents):
        part = name.rsplit("-", 1)[1]
        first = template["spec"]["containers"][0]
        asked = {first[probe]["httpGet"]["path"] for probe in PROBES if "httpGet" in first.get(probe, {})}
        if part == "api":
            assert asked == {"/healthz", "/readyz"} <= paths["api"]
        elif asked and not any(path.startswith("/v2/") for path in asked):
            assert asked == {"/healthz", "/readyz"} <= paths["teacher"]


PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def test_a_server_that_loads_or_is_busy_is_not_killed(helm: Helm) -> None:
    documents = helm.template(GPU, "--set", "teacher.startSeconds=7200")
    server = container(documents, "StatefulSet", "t-k2d-teacher")
    start, alive = server["startupProbe"], server["livenessProbe"]
    assert start["httpGet"]["path"] == "/readyz"
    assert start["periodSeconds"] * start["failureThreshold"] == 7200  # liveness does not count before
    assert alive["httpGet"]["path"] == "/healthz"
    assert alive["periodSeconds"] * alive["failureThreshold"] >= 60


def test_workers_get_the_time_to_put_their_work_back(helm: Helm) -> None:
    from services.filter.jobs import STOP_GRACE_S

    worker = pod(named(helm.template(GPU), "Deployment", "t-k2d-worker"))["spec"]
    assert worker["terminationGracePeriodSeconds"] > 2 * STOP_GRACE_S


# ---- commands -----------------------------------------------------------------------------------------------------


def parsed(arguments: list[str]) -> dict[str, Any]:
    """A `k2d` command line, parsed by the CLI itself; SystemExit or UsageError where it would refuse."""
    command = typer.main.get_command(cli)
    name, *rest = arguments
    sub = command.commands[name]  # type: ignore[attr-defined]
    parameters: dict[str, Any] = sub.make_context(name, rest).params
    return parameters


def test_commands_are_what_the_cli_takes(helm: Helm) -> None:
    line = container(helm.template(GPU), "StatefulSet", "t-k2d-validator")["command"]
    assert parsed(line[1:])["role"] == "validator"


def test_servers_listen_to_other_pods(helm: Helm) -> None:
    for values in (GPU, TRITON):
        for role in ("teacher", "validator"):
            server = container(helm.template(values), "StatefulSet", f"t-k2d-{role}")
            assert {"name": "K2D_HOST", "value": "0.0.0.0"} in server["env"]


def test_triton_is_started_as_its_image_expects(helm: Helm) -> None:
    """The image's entry point takes the models' names and serves on Triton's own ports."""
    server = container(helm.template(TRITON), "StatefulSet", "t-k2d-validator")
    assert "command" not in server
    assert server["args"] == ["validator"]
    assert set(server["args"]) <= set(MODELS)
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports == {"http": HTTP_PORT, "grpc": GRPC_PORT, "metrics": METRICS_PORT}
    assert server["readinessProbe"]["httpGet"]["path"] == "/v2/models/validator/ready"
    assert "/dev/shm" in {mount["mountPath"] for mount in server["volumeMounts"]}
    image = (ROOT / "deploy" / "triton" / "Dockerfile").read_text("utf-8")
    assert 'ENTRYPOINT ["/opt/k2d/bin/python", "-m", "services.tritonserver"]' in image


def test_gpus_are_asked_for_and_required(helm: Helm) -> None:
    documents = helm.template(GPU)
    server = container(documents, "StatefulSet", "t-k2d-teacher")
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "K2D_DEVICE", "value": "cuda"} in server["env"]  # no GPU: an error, not a crawl on the CPU
    assert server["image"] == "registry.example/speech/k2d-server:2026-11-cuda"
    spec = pod(named(documents, "StatefulSet", "t-k2d-teacher"))["spec"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]


# ---- the trainer --------------------------------------------------------------------------------------------------


def test_the_trainer_is_given_a_recipe_that_it_takes(helm: Helm) -> None:
    from trainer.commands.train import _changes

    trainer = container(helm.template(TRITON), "CronJob", "t-k2d-trainer")
    line = parsed([*trainer["command"][1:], *trainer["args"]])
    assert (line["dataset"], str(line["run"]), line["resume"]) == ("lectures-v1", "/training/runs/first", True)
    recipe = load_recipe(line["recipe"], _changes(line["change"]))
    assert recipe == Recipe(steps=20_000, learning_rate=5e-5, trackers=("tensorboard",))
    assert "/training" in {mount["mountPath"] for mount in trainer["volumeMounts"]}


def test_several_gpus_get_a_process_each(helm: Helm) -> None:
    trainer = container(helm.template(GPU), "CronJob", "t-k2d-trainer")
    assert trainer["command"][0] == "torchrun"
    assert trainer["resources"]["limits"]["nvidia.com/gpu"] == 4
    launcher = pytest.importorskip("torch.distributed.run").get_args_parser()
    launched = launcher.parse_args([*trainer["command"][1:], *trainer["args"]])
    assert (launched.nproc_per_node, launched.module, launched.training_script) == ("4", True, "trainer")
    line = parsed(["train", *launched.training_script_args])  # what `-m trainer` makes of it
    assert line["recipe"] == "paper"
    assert "/dev/shm" in {mount["mountPath"] for mount in trainer["volumeMounts"]}


def test_the_trainer_reads_the_lake_where_it_is(helm: Helm) -> None:
    """An object store with its credentials, or the lake's volume, which it cannot write."""
    store = container(helm.template(GPU), "CronJob", "t-k2d-trainer")
    variables = {entry["name"]: entry.get("value") for entry in store["env"]}
    assert (variables["K2D_STORE"], variables["AWS_REGION"]) == ("s3://speech/k2d", "eu-west-1")
    assert store["envFrom"] == [{"secretRef": {"name": "k2d-s3"}}]
    volume = container(helm.template(TRITON), "CronJob", "t-k2d-trainer")
    assert {"name": "lake", "mountPath": "/data", "readOnly": True} in volume["volumeMounts"]
    assert {"name": "K2D_STORE", "value": "/data"} in volume["env"]


def test_a_trainer_that_dies_goes_on_and_one_that_is_wrong_does_not(helm: Helm) -> None:
    """Exit status 2 says that the request makes no sense (docs/cli.md): another pod would say the same."""
    spec = named(helm.template(GPU), "CronJob", "t-k2d-trainer")["spec"]["jobTemplate"]["spec"]
    assert spec["backoffLimit"] > 0
    actions = {rule["action"]: rule for rule in spec["podFailurePolicy"]["rules"]}
    assert actions["FailJob"]["onExitCodes"]["values"] == [2]
    assert actions["Ignore"]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


# ---- scaling ------------------------------------------------------------------------------------------------------


@pytest.fixture
def gauges(redis_url: str) -> dict[str, float]:
    """The API's own answer to /metrics, after one job was enqueued, by series."""
    queue = WorkQueue(load(redis_url=redis_url))
    queue.redis.flushdb()
    request_plan(queue, "b")
    families = text_string_to_metric_families(exposition(queue).decode())
    return {_series(s.name, s.labels): s.value for family in families for s in family.samples}


def _series(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "}"


def test_keda_reads_gauges_that_the_api_has(helm: Helm, gauges: dict[str, float]) -> None:
    spec = named(helm.template(GPU), "ScaledObject", "t-k2d-worker")["spec"]
    read = {trigger["metadata"]["valueLocation"] for trigger in spec["triggers"]}
    assert read <= set(gauges)
    # a batch begins as one job in the control queue: it must wake the first worker
    assert [location for location in read if gauges[location] > 0] == [f'k2d_queue_jobs{{queue="{CONTROL}"}}']
    assert {f'k2d_queue_oldest_seconds{{queue="{LABEL}"}}', f'k2d_queue_started{{queue="{LABEL}"}}'} < read
    api = named(helm.template(GPU), "Service", "t-k2d-api")["spec"]["ports"][0]
    expected = f"http://t-k2d-api.speech.svc:{api['port']}/metrics"
    assert {trigger["metadata"]["url"] for trigger in spec["triggers"]} == {expected}


def test_jobs_in_hand_keep_their_workers(helm: Helm) -> None:
    """HPA takes the largest of ceil(value / target): as many workers as there are jobs that a worker has."""
    spec = named(helm.template(GPU), "ScaledObject", "t-k2d-worker")["spec"]
    started = [t for t in spec["triggers"] if "k2d_queue_started" in t["metadata"]["valueLocation"]]
    assert [t["metadata"]["targetValue"] for t in started] == ["1", "1", "1"]
    assert {t["metricType"] for t in spec["triggers"]} == {"AverageValue"}
    assert spec["scaleTargetRef"]["name"] == "t-k2d-worker"
    assert "replicas" not in named(helm.template(GPU), "Deployment", "t-k2d-worker")["spec"]


# ---- Redis --------------------------------------------------------------------------------------------------------


def test_redis_starts_as_the_chart_says(helm: Helm, tmp_path: Path) -> None:
    """The pod's own script, run here: a password that no process list shows, an AOF, and no eviction."""
    given = container(helm.template(CHART / "ci" / "minimal.yaml"), "StatefulSet", "t-k2d-redis")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(find_binary())
    port = free_port()
    script = given["args"][0].replace("dir /data", f"dir {tmp_path}\nport {port}\nbind 127.0.0.1")
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "REDIS_PASSWORD": "secret"}
    process = subprocess.Popen([*given["command"], script], env=env, stdout=subprocess.DEVNULL)
    try:
        client = Redis(port=port, password="secret", decode_responses=True, retry=Retry(NoBackoff(), 0))
        assert _answers(client)
        with pytest.raises(AuthenticationError):
            Redis(port=port).ping()
        assert client.config_get("appendonly", "maxmemory-policy") == {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
        }
        assert b"secret" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _answers(client: Redis) -> bool:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            return bool(client.ping())
        except ConnectionError:
            time.sleep(0.1)
    return False
