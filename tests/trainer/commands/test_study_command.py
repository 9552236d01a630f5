"""`k2d study` with real weights on sample clips: labeled once, doubted by two validator_sets, reported."""

import json
import sys
from pathlib import Path

import pytest
from places import EXAMPLES
from weights import base

from k2d.cli import main

pytestmark = [pytest.mark.integration]
CLIPS = ["cs-clean-1.flac", "cs-clean-3.mp3", "cut-off.flac"]


def test_two_panels_on_the_same_labels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base()
    rows = [json.loads(line) for line in (EXAMPLES / "manifest.jsonl").read_text("utf-8").splitlines()]
    chosen = [row | {"audio": str(EXAMPLES / row["audio"])} for row in rows if row["audio"] in CLIPS]
    manifest, out = tmp_path / "clips.jsonl", tmp_path / "out"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in chosen), "utf-8")
    arguments = [str(manifest), "--store", str(tmp_path / "lake"), "--out", str(out), "--bootstrap", "100"]
    validator_sets = ["--validator", "perturbed", "--validator", "perturbed+rescue", "--cost", "6"]
    monkeypatch.setattr(sys, "argv", ["k2d", "study", *arguments, *validator_sets])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert "Of 2 labels" in said.out.replace("\n", " ")
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert [one["name"] for one in report["validator_sets"]] == ["perturbed", "perturbed+rescue"]
    assert all(one["compute_s_per_hour"] > 1 for one in report["validator_sets"])
    assert report["material"]["labels"] == 2
    assert [why.split(":")[0] for why in report["material"]["set_aside"].values()] == ["truncated"]
    areas = {one["name"]: one["area"]["value"] for one in report["validator_sets"][0]["filters"]}
    assert 0 <= areas["evidence"] <= 0.5
    lines = [json.loads(line) for line in (out / "labels.jsonl").read_text("utf-8").splitlines()]
    assert all(line["text"] and len(line["heard"]) == 2 for line in lines)  # the perturbed perturbations
