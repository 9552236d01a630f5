"""The command line as a person meets it: what it prints, where, and how it ends."""

import json
import os
import re
import subprocess
import sys

import pytest

from k2d.schema import Metric


def test_help_explains_every_command(k2d):
    code, out, _ = k2d("--help")
    assert code == 0
    for command in ("up", "label", "status", "chunks", "curve", "freeze", "export", "resume", "models", "doctor"):
        assert f" {command} " in out
        code, text, _ = k2d(command, "--help")
        assert code == 0
        assert len(text) > 200


def test_status_chunks_and_curve_of_a_finished_batch(k2d, batch):
    status = json.loads(k2d("status", "lectures", "--policy", "paper", "--json")[1])
    assert (status["state"], status["ledger"]["chunks"]) == ("done", {"accepted": 4, "salvaged": 0, "rejected": 4})
    rows = [json.loads(line) for line in k2d("chunks", "lectures", "--jsonl")[1].splitlines()]
    assert len(rows) == 8
    wanted = {"id", "recording", "start_s", "end_s", "teacher_text", "validator_texts", "verdict", "reason"}
    assert all(wanted <= set(row) and set(row["distances"]) == set(Metric) for row in rows)
    curve = json.loads(k2d("curve", "lectures", "--json")[1])
    assert set(curve["curve"]) == set(Metric)
    detail = ("chunks", "--id", rows[1]["id"])
    assert json.loads(k2d(*detail, "--jsonl")[1])["hypotheses"][0]["text"] == rows[1]["validator_texts"][0]
    for command in (("status", "lectures"), ("chunks", "lectures"), detail, ("curve", "lectures"), ("batches",)):
        code, out, _ = k2d(*command)
        assert code == 0
        assert out


def test_chunks_are_filtered_as_asked(k2d, batch):
    def ids(*options):
        return [json.loads(line)["id"] for line in k2d("chunks", "lectures", "--jsonl", *options)[1].splitlines()]

    every = ids()
    accepted, rejected = ids("--verdict", "accepted"), ids("--verdict", "rejected")
    assert sorted([*accepted, *rejected]) == sorted(every)
    assert accepted
    assert ids("--reason", "teacher_repetition") == [every[2], every[6]]
    assert ids("--recording", "talk-1.wav") == every[4:]
    assert ids("--text", "deadline") == [every[3], every[7]]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("label", "no-such-file.wav"), {}, "does not exist"),
        (("status", "nothing"), {}, "no batch is called"),
        (("label", "."), {}, r"no audio in \."),
        (("label", "no-such-file.wav", "--batch", "a/b"), {}, "not a valid name"),
        (("label", "no-such-file.wav", "--language", "xx"), {}, "language"),
        (("label", "no-such-file.wav", "--dry-run", "--validator", "nothing:"), {}, "nothing:"),
        (("freeze", "v1", "--batch", "lectures", "--alpha", "1.5"), {}, "between 0 and 1"),
        (("freeze", "../x", "--batch", "lectures"), {}, "not a valid name"),
        (("status", "x"), {"K2D_STROE": "y"}, "unknown setting: K2D_STROE"),
        (("status", "x"), {"K2D_PORT": "0"}, "invalid setting"),
        (("status", "x", "--api", "http://127.0.0.1:1"), {}, "no API answers"),
        (("models", "--pull", "packaged:nothing"), {}, "unknown model"),
        (("status", "x"), {"K2D_STORE": "gopher://x"}, "store|protocol"),
        (("label", sys.executable), {"K2D_STORE": "/dev/null/x"}, "store|written|Not a directory"),
        (("export", "v1", "out", "--format", "mp3"), {}, "unknown export format|no dataset"),
    ],
)
def test_mistakes_end_in_one_message_with_a_hint(k2d, batch, arguments, environment, message):
    code, out, err = k2d(*arguments, **environment)
    assert code in (1, 2)
    assert out == ""
    assert re.search(message, err), err
    assert "hint" in err


@pytest.mark.integration
def test_doctor_says_what_works(k2d):
    code, out, _ = k2d("doctor", "--json")
    findings = {row["check"]: row for row in json.loads(out)}
    assert findings["store"]["ok"]
    assert findings["Redis"]["ok"]
    assert not findings["API answers"]["ok"]
    assert findings["API answers"]["advice"]
    assert code == (0 if all(row["ok"] for row in findings.values() if row["needed"]) else 1)


@pytest.mark.integration
@pytest.mark.slow
def test_label_wait_json_with_no_server_does_the_whole_job(k2d, examples, tmp_path):
    clips = [examples / name for name in ("cs-clean-1.flac", "cs-clean-2.flac", "cut-off.flac")]
    keep = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
    done = subprocess.run(
        [sys.executable, "-m", "k2d.cli", "label", *clips, "--wait", "--json", "--batch", "few"],
        cwd=tmp_path,
        env=keep | {"K2D_STORE": str(tmp_path / "lake")},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    book = json.loads(done.stdout)
    assert book["recordings"]["labeled"] == 2
    assert book["recordings"]["quarantined"] == 1
    seconds = book["seconds"]
    parts = sum(seconds[part] for part in ("accepted", "salvaged", "rejected", "quarantined", "silence"))
    assert abs(seconds["in"] - parts) < 0.05
    rows = [json.loads(line) for line in k2d("chunks", "few", "--jsonl")[1].splitlines()]
    assert {row["recording"] for row in rows} <= {clip.name for clip in clips}
