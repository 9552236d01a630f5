"""docker-compose.yml, brought up: a batch becomes a dataset, workers share and survive, nobody has more than they need.

Run by tests/compose/run.sh (`make test-compose`), in this order; not collected by the default test run.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.dataset
import pytest
import soundfile

from k2d.client.http import Client
from k2d.documents import BatchOptions, BatchStatus
from k2d.filtering.policy import DEFAULT
from k2d.schema import BatchState

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "audio"
ENV = dict(line.split("=", 1) for line in Path(os.environ["COMPOSE_ENV_FILE"]).read_text().splitlines())
COMPOSE = [
    *(str(Path(sys.executable).with_name("docker-compose")), "--project-name", os.environ["COMPOSE_PROJECT"]),
    *("--env-file", os.environ["COMPOSE_ENV_FILE"]),
]
PATIENCE_S = 400  # two shared cores, and a killed worker's job waits up to 90 s


def compose(*arguments: str, check: bool = True) -> str:
    done = subprocess.run([*COMPOSE, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert not check or done.returncode == 0, f"compose {' '.join(arguments)}: {done.stderr[-3000:]}"
    return done.stdout.strip()


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def inside(service: str, code: str, *, index: int = 1) -> str:
    return compose("exec", "-T", "--index", str(index), service, "python", "-c", code)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.3)
    return result


@pytest.fixture(scope="module", autouse=True)
def stack() -> Iterator[None]:
    compose("up", "-d", "--wait", "--wait-timeout", "300", "--no-build")
    yield
    compose("--profile", "*", "down", "--volumes", "--timeout", "10")


@pytest.fixture(scope="module")
def client() -> Client:
    return Client(f"http://127.0.0.1:{ENV['API_PORT']}", token=ENV["K2D_API_TOKEN"])


@pytest.fixture
def clips(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The clean and degraded clips a little softer: other samples for each test, so that no label is there already."""
    softer = 1 - 0.01 * (1 + len(request.node.name) % 20)
    for path in sorted(EXAMPLES.glob("cs-*.*")):
        samples, rate = soundfile.read(path) if path.suffix != ".m4a" else (None, 0)
        if samples is not None:
            soundfile.write(tmp_path / f"{path.stem}.flac", np.asarray(samples) * softer, rate)
    return tmp_path


def post(client: Client, paths: Path, name: str, *, wait: bool) -> BatchStatus:
    return client.label([str(paths)], BatchOptions(name=name), wait=wait)


def is_done(status: BatchStatus) -> bool:
    """Whether every recording has a result, and every second went somewhere."""
    seconds = status.ledger.seconds
    parts = seconds.accepted + seconds.salvaged + seconds.rejected + seconds.quarantined + seconds.silence
    done = status.state is BatchState.DONE and status.ledger.recordings.pending == 0
    return done and abs(seconds.input - parts) < 0.001


WORKERS = """
import json, os
from redis import Redis
redis = Redis.from_url(os.environ["K2D_REDIS_URL"], decode_responses=True)
rows = [redis.hgetall(name) for name in redis.smembers("rq:workers")]
print(json.dumps({row["hostname"]: row for row in rows if "hostname" in row}))
"""


def workers() -> dict[str, dict[str, str]]:
    """What Redis knows of each worker, by container id."""
    rows: dict[str, dict[str, str]] = json.loads(inside("api", WORKERS))
    return rows


# ---- no part has more than it needs -------------------------------------------------------------------------------

PRIVILEGES = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
try:
    open("/opt/k2d/x", "w"); written = True
except OSError as error:
    written = error.errno != 30  # read-only file system
print(json.dumps({"uid": os.getuid(), "capabilities": int(status["CapBnd"], 16), "writable": written,
                  "no_new_privileges": int(status["NoNewPrivs"])}))
"""


@pytest.mark.parametrize("service", ["api", "worker", "teacher-cpu"])
def test_parts_run_without_privileges_on_a_read_only_root(service: str) -> None:
    assert json.loads(inside(service, PRIVILEGES)) == {
        "uid": 10001,
        "capabilities": 0,
        "writable": False,
        "no_new_privileges": 1,
    }


@pytest.mark.parametrize(
    ("service", "absent"),
    [("api", ("torch", "ctranslate2", "pip", "hatchling")), ("teacher-cpu", ("torch", "pip", "hatchling"))],
)
def test_images_hold_no_more_than_they_use(service: str, absent: tuple[str, ...]) -> None:
    code = f"import importlib.util as u; print([name for name in {absent!r} if u.find_spec(name)])"
    assert inside(service, code) == "[]"


def test_redis_wants_its_password_and_does_not_show_it() -> None:
    refused = compose("exec", "-T", "redis", "redis-cli", "ping", check=False)
    assert "NOAUTH" in refused
    assert ENV["REDIS_PASSWORD"] not in compose("exec", "-T", "redis", "cat", "/proc/1/cmdline")
    kept = compose(
        "exec", "-T", "redis", "sh", "-c", "REDISCLI_AUTH=$REDIS_PASSWORD redis-cli config get append* maxm*"
    )
    assert "appendonly yes" in kept.replace("\n", " ")
    assert "noeviction" in kept


def test_the_api_listens_on_this_machine_only_and_wants_its_token() -> None:
    addresses = docker("port", compose("ps", "-q", "api"))
    assert addresses == f"8080/tcp -> 127.0.0.1:{ENV['API_PORT']}"
    assert httpx.get(f"http://127.0.0.1:{ENV['API_PORT']}/v1/batches").status_code == httpx.codes.UNAUTHORIZED


def test_keys_have_roles() -> None:
    """Keys that are made in a container count at once; a viewer reads and posts nothing, a revoked key does neither."""
    api = f"http://127.0.0.1:{ENV['API_PORT']}/v1"
    made = json.loads(compose("exec", "-T", "api", "k2d", "keys", "create", "a viewer", "--role", "viewer", "--json"))
    headers = {"Authorization": f"Bearer {made['key']}"}
    wait_for(lambda: httpx.get(f"{api}/batches", headers=headers).status_code == httpx.codes.OK, "the key is known")
    refused = httpx.post(f"{api}/batches", headers=headers, json={"sources": ["file:///audio/a.wav"]})
    assert (refused.status_code, refused.json()["least_role"]) == (httpx.codes.FORBIDDEN, "operator")
    # the inference server knows no key but its own
    teacher = "import httpx; print(httpx.post('http://teacher:8000/v1/audio/transcriptions').status_code)"
    assert inside("worker", teacher) == str(httpx.codes.UNAUTHORIZED.value)
    compose("exec", "-T", "api", "k2d", "keys", "revoke", "a viewer")
    wait_for(lambda: httpx.get(f"{api}/batches", headers=headers).status_code == 401, "the key is known as revoked")


def test_a_worker_without_weights_stays_small() -> None:
    pid = docker("inspect", "--format", "{{.State.Pid}}", compose("ps", "-q", "worker"))
    resident = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    assert int(resident.split()[1]) < 250 * 1024


# ---- the walk -----------------------------------------------------------------------------------------------------


def test_a_batch_ends_in_a_frozen_dataset(client: Client, tmp_path: Path) -> None:
    status = post(client, EXAMPLES, "examples", wait=True)
    book = status.ledger
    assert is_done(status)
    assert book.recordings.labeled == 13
    assert book.recordings.quarantined == 1  # the file that is cut off
    manifest = client.freeze("first", ["examples"], DEFAULT)
    assert manifest.seconds.accepted == book.seconds.accepted > 60
    client.export("first", "huggingface", tmp_path / "first")
    rows = pyarrow.dataset.dataset(sorted(map(str, (tmp_path / "first").rglob("*.parquet")))).to_table()
    assert rows.num_rows == manifest.counts.rows > 10


def test_a_thousand_files_pass_through_a_small_api(tmp_path: Path) -> None:
    """1,000 × 1 MB in one request to an API that may use 512 MB. They are silent, so that nobody labels them."""
    container = compose("ps", "-q", "api")
    for number in range(1000):
        quiet = np.zeros(500_000, np.int16)
        quiet[number] = 1  # other samples, and below what counts as silence
        soundfile.write(tmp_path / f"{number:04}.wav", quiet, 16_000, subtype="PCM_16")
    names = sorted(tmp_path.iterdir())
    with ExitStack() as stack:
        parts = [("files", (name.name, stack.enter_context(name.open("rb")), "audio/wav")) for name in names]
        answer = httpx.post(
            f"http://127.0.0.1:{ENV['API_PORT']}/v1/batches",
            files=parts,
            data={"name": "many"},
            headers={"Authorization": f"Bearer {ENV['K2D_API_TOKEN']}"},
            timeout=PATIENCE_S,
        )
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    state = json.loads(docker("inspect", "--format", "{{json .State}}", container))
    assert (state["Running"], state["OOMKilled"]) == (True, False)
    assert docker("inspect", "--format", "{{.RestartCount}}", container) == "0"
    api = Client(f"http://127.0.0.1:{ENV['API_PORT']}", token=ENV["K2D_API_TOKEN"])
    assert api.cancel("many").recordings == len(names)  # with jobs of 10 s the rest of this walk would wait for it


def test_three_workers_share_the_work(client: Client, clips: Path) -> None:
    compose("up", "-d", "--wait", "--no-build", "--scale", "worker=3")
    before = {host: int(row.get("successful_job_count", 0)) for host, row in workers().items()}
    assert len(before) == 3
    status = post(client, clips, "shared", wait=True)
    after = {host: int(row.get("successful_job_count", 0)) for host, row in workers().items()}
    busy = [host for host in before if after[host] > before[host]]
    assert is_done(status)
    assert len(busy) > 1, f"one worker did everything: {before} → {after}"


def test_a_killed_worker_loses_nothing(client: Client, clips: Path) -> None:
    post(client, clips, "killed", wait=False)

    def busy() -> str | None:
        counts = client.status("killed", DEFAULT).ledger.recordings
        if not (counts.labeled and counts.pending):
            return None
        return next((host for host, row in workers().items() if row.get("state") == "busy"), None)

    docker("kill", "--signal", "KILL", wait_for(busy, "a worker at work on the batch"))
    status = post(client, clips, "killed", wait=True)
    counts = status.ledger.recordings
    assert is_done(status)
    assert (counts.labeled, counts.quarantined) == (len(list(clips.iterdir())), 0)
    ids = [chunk.id for chunk in client.chunks("killed")]
    assert len(ids) == len(set(ids)) > 0


def test_a_stopped_worker_puts_its_work_back(client: Client, clips: Path) -> None:
    compose("up", "-d", "--wait", "--no-build", "--scale", "worker=1")
    post(client, clips, "stopped", wait=False)
    wait_for(lambda: any(row.get("state") == "busy" for row in workers().values()), "a worker at work")
    container = compose("ps", "-q", "worker")
    compose("stop", "worker")
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"  # it ended by itself, not by SIGKILL
    compose("up", "-d", "--wait", "--no-build")
    status = post(client, clips, "stopped", wait=True)
    assert is_done(status)


# ---- monitoring ---------------------------------------------------------------------------------------------------


def test_prometheus_sees_every_part() -> None:
    compose("--profile", "monitoring", "up", "-d", "--wait", "--no-build", "prometheus")
    base = f"http://127.0.0.1:{ENV['PROMETHEUS_PORT']}/api/v1"

    def healthy() -> bool:
        targets = httpx.get(f"{base}/targets").json()["data"]["activeTargets"]
        return {(target["labels"]["job"], target["health"]) for target in targets} == {
            *(("api", "up"), ("prometheus", "up"), ("teacher", "up"))
        }

    wait_for(healthy, "all targets up")
    assert httpx.get(f"{base}/rules").json()["data"]["groups"]
    [series, *_] = httpx.get(f"{base}/query", params={"query": "k2d_batch_size_count"}).json()["data"]["result"]
    assert float(series["value"][1]) > 0


def test_the_doctor_in_a_container_finds_nothing_broken() -> None:
    findings = json.loads(compose("exec", "-T", "worker", "k2d", "doctor", "--json"))
    assert [finding for finding in findings if finding["needed"] and not finding["ok"]] == []


def test_redis_and_all_it_held_may_be_lost(client: Client, clips: Path) -> None:
    post(client, clips, "forgotten", wait=False)
    compose("kill", "redis", "worker")
    url = f"http://127.0.0.1:{ENV['API_PORT']}/readyz"
    wait_for(lambda: httpx.get(url, timeout=30).status_code == httpx.codes.SERVICE_UNAVAILABLE, "not ready")
    compose("rm", "--force", "redis")
    docker("volume", "rm", f"{os.environ['COMPOSE_PROJECT']}_redis")
    compose("up", "-d", "--wait", "--no-build")
    assert httpx.get(url, timeout=30).status_code == httpx.codes.OK
    assert client.status("shared", DEFAULT).state is BatchState.DONE  # the lake is the truth
    assert client.status("forgotten", DEFAULT).state is BatchState.STALLED
    compose("exec", "-T", "api", "k2d", "resume")
    status = post(client, clips, "forgotten", wait=True)
    assert is_done(status)


def test_the_trainer_trains_on_the_lake() -> None:
    if not docker("images", "-q", f"{ENV['IMAGES']}-trainer:{ENV['TAG']}"):
        pytest.skip("the trainer's image was not built: TRAINER=1 make test-compose")
    run = ("--profile", "trainer", "run", "--rm", "-T", "trainer")
    train = ("k2d", "train", "first", "--out", "/training/first", "--set", "batch=2", "--set", "micro_batch=1")
    compose(*run, *train, "--set", "steps=1")
    compose(*run, *train, "--set", "steps=2", "--resume")
    code = "import json, pathlib as p; run = p.Path('/training/first'); print((run / 'metrics.jsonl').read_text())"
    steps = [json.loads(line)["step"] for line in compose(*run, "python", "-c", code).splitlines() if line]
    assert steps == [1, 2]
    compose(*run, "k2d", "convert", "/training/first", "/training/first-int8", "--format", "ctranslate2")
    compose(*run, "python", "-c", "import os; assert os.path.getsize('/training/first-int8/model.bin') > 10_000_000")
