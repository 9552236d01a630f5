"""The command line as a person meets it: in processes of its own."""

import json
import os
import subprocess
import sys

import pytest
from factories import finished_batch

from k2d.store import Lake


@pytest.fixture
def k2d(tmp_path):
    """Run `k2d` in an empty folder with a fresh store; returns exit status, stdout, stderr."""

    def run(*arguments, **environment):
        keep = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
        settings = {"K2D_STORE": str(tmp_path / "lake"), "K2D_API_URL": "", **environment}
        done = subprocess.run(
            [sys.executable, "-m", "k2d.cli", *map(str, arguments)],
            cwd=tmp_path,
            env=keep | {name: value for name, value in settings.items() if value},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def batch(tmp_path):
    return finished_batch(Lake(str(tmp_path / "lake")))


def test_help_explains_every_command(k2d):
    code, out, _ = k2d("--help")
    assert code == 0
    for command in ("up", "label", "status", "chunks", "curve", "freeze", "export", "resume", "models", "doctor"):
        assert f" {command} " in out
        code, text, _ = k2d(command, "--help")
        assert code == 0
        assert len(text) > 200


def test_status_chunks_and_curve_of_a_finished_batch(k2d, batch):
    status = json.loads(k2d("status", "lectures", "--json")[1])
    assert (status["state"], status["ledger"]["chunks"]) == ("done", {"accepted": 4, "rejected": 4})
    rows = [json.loads(line) for line in k2d("chunks", "lectures", "--jsonl")[1].splitlines()]
    wanted = {"recording", "start_s", "end_s", "teacher_text", "validator_text"} | {
        "mer", "per", "composite", "verdict", "reason"
    }  # fmt: skip
    assert len(rows) == 8
    assert all(wanted <= set(row) for row in rows)
    curve = json.loads(k2d("curve", "lectures", "--json")[1])
    assert set(curve["curve"]) >= {"mer", "per", "composite"}
    for command in (("status", "lectures"), ("chunks", "lectures"), ("curve", "lectures"), ("batches",)):
        code, out, _ = k2d(*command)
        assert code == 0
        assert out


def test_freeze_and_export(k2d, batch, tmp_path):
    code, out, err = k2d("freeze", "v1", "--batch", "lectures", "--metric", "composite", "--alpha", "0.4", "--json")
    assert code == 0, err
    assert json.loads(out)["counts"]["accepted"] == 4
    code, out, err = k2d("export", "v1", "--format", "nemo", tmp_path / "out")
    assert code == 0, err
    assert any((tmp_path / "out").iterdir())
    assert k2d("export", "v1", "--format", "nemo", tmp_path / "out")[0] == 2  # never overwrites


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("label", "no-such-file.wav"), {}, "does not exist"),
        (("status", "nothing"), {}, "no batch is called"),
        (("label", ".", "--language", "klingon"), {}, "unknown language|at least one recording"),
        (("freeze", "v1", "--batch", "lectures", "--alpha", "1.5"), {}, "between 0 and 1"),
        (("freeze", "../x", "--batch", "lectures"), {}, "not a name"),
        (("status", "x"), {"K2D_STROE": "y"}, "unknown setting: K2D_STROE"),
        (("status", "x"), {"K2D_PORT": "0"}, "impossible setting"),
        (("status", "x", "--api", "http://127.0.0.1:1"), {}, "nobody answers"),
        (("models", "--pull", "packaged:nothing"), {}, "unknown model"),
        (("status", "x"), {"K2D_STORE": "gopher://x"}, "store|protocol"),
    ],
)
def test_mistakes_end_in_one_message_with_a_hint(k2d, batch, arguments, environment, said):
    import re

    code, out, err = k2d(*arguments, **environment)
    assert code in (1, 2)
    assert out == ""
    assert re.search(said, err), err
    assert "hint" in err


def test_doctor_says_what_works(k2d):
    code, out, _ = k2d("doctor", "--json")
    findings = {row["check"]: row for row in json.loads(out)}
    assert findings["store"]["ok"]
    assert findings["Redis"]["ok"]
    assert not findings["API answers"]["ok"]
    assert findings["API answers"]["advice"]
    assert code == (0 if all(row["ok"] for row in findings.values() if row["needed"]) else 1)


@pytest.mark.slow
def test_label_wait_json_with_no_server_does_the_whole_job(k2d, examples, tmp_path):
    clips = sorted(examples.glob("*.flac"))[:2] + sorted(examples.glob("*broken*"))
    code, out, err = k2d("label", *clips, "--wait", "--json", "--batch", "few")
    assert code == 0, err
    book = json.loads(out)
    assert book["recordings"]["labeled"] == 2
    assert book["recordings"]["quarantined"] == 1
    seconds = book["seconds"]
    parts = sum(seconds[part] for part in ("accepted", "rejected", "quarantined", "silence"))
    assert abs(seconds["in"] - parts) < 0.05
    rows = [json.loads(line) for line in k2d("chunks", "few", "--jsonl")[1].splitlines()]
    assert {row["recording"] for row in rows} <= {str(clip) for clip in clips}
