"""`k2d eval` with real weights on sample clips: base and a copy of itself."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from places import EXAMPLES
from weights import BASE, base

from k2d.cli import main

pytestmark = [pytest.mark.integration]
CLIPS = ["cs-clean-1.flac", "cs-clean-3.mp3"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    base()
    monkeypatch.setenv("COLUMNS", "140")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["k2d", "eval", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two short sample clips, and one that breaks off."""
    rows = [json.loads(line) for line in (EXAMPLES / "manifest.jsonl").read_text("utf-8").splitlines()]
    chosen = [row | {"audio": str(EXAMPLES / row["audio"])} for row in rows if row["audio"] in [*CLIPS, "cut-off.flac"]]
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen), "utf-8")
    return path


def test_two_models_on_the_same_audio(evaluated: Run, clips: Path, tmp_path: Path) -> None:
    """The second is the same weights from a folder: the same text, the same size, no difference."""
    copy = tmp_path / "student"
    shutil.copytree(base().path, copy)
    code, out, err = evaluated(str(clips), "--model", BASE, "--model", str(copy), "--out", str(tmp_path / "r"))
    assert code == 0, err
    assert "MER" in out
    assert "1 skipped, the first" in out
    report = json.loads((tmp_path / "r" / "report.json").read_text("utf-8"))
    first, second = report["models"]
    assert report["set"]["utterances"] == 2
    assert [why.split(":")[0] for why in report["set"]["skipped"].values()] == ["truncated"]
    assert 0 < first["figures"]["mer"]["rate"]["value"] < 0.5
    assert second["figures"]["mer"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert first["size"]["parameters"] == second["size"]["parameters"] == pytest.approx(72.6e6, rel=0.01)
    assert first["speed"]["tokens"] == second["speed"]["tokens"] > 20
    assert first["speed"]["audio_s"] == pytest.approx(7.288 + 5.621, abs=0.2)
    assert "<table>" in (tmp_path / "r" / "report.html").read_text("utf-8")


def test_json_one_window_and_another_prompt(evaluated: Run, clips: Path) -> None:
    code, out, _ = evaluated(str(clips), "--limit", "2", "--language", "zh", "--no-long-form", "--json")
    assert code == 0
    report = json.loads(out)
    assert [results["reference"] for results in report["models"]] == [BASE]  # the teacher of the settings
    assert (report["language"], report["long_form"], report["set"]["utterances"]) == ("zh", False, 2)
    assert report["models"][0]["speed"]["windows"] == 2


def test_mistakes_are_reported_before_anything_is_transcribed(evaluated: Run, clips: Path, tmp_path: Path) -> None:
    code, _, err = evaluated("no-such-set", "--model", BASE)
    assert (code, "no-such-set" in err) == (2, True)
    (tmp_path / "file").touch()
    code, _, err = evaluated(str(clips), "--out", str(tmp_path / "file"))
    assert code == 1
    assert "no report can be written" in err
    code, _, err = evaluated(str(clips), "--model", str(tmp_path / "no-model"))
    assert code == 1
    assert "no model" in err
