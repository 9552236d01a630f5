"""`k2d study` with real weights on sample clips: labeled once, validated in two ways, reported."""

import json
import sys
from pathlib import Path

import pytest
from places import EXAMPLES
from weights import base

from k2d.cli import main

pytestmark = [pytest.mark.integration]
CLIPS = ["cs-clean-1.flac", "cs-clean-3.mp3", "cut-off.flac"]


def test_two_sets_of_validators_on_the_same_labels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base()
    rows = [json.loads(line) for line in (EXAMPLES / "manifest.jsonl").read_text("utf-8").splitlines()]
    chosen = [row | {"audio": str(EXAMPLES / row["audio"])} for row in rows if row["audio"] in CLIPS]
    manifest, out = tmp_path / "clips.jsonl", tmp_path / "out"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in chosen), "utf-8")
    arguments = [str(manifest), "--store", str(tmp_path / "lake"), "--out", str(out), "--bootstrap", "100"]
    validators = ["--validator", "perturbed", "--validator", "perturbed+second-decode", "--cost", "6"]
    monkeypatch.setattr(sys, "argv", ["k2d", "study", *arguments, *validators])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    assert "On clips (2 labels, 0.00 h, validator: perturbed)" in printed.out.replace("\n", " ")
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert [each["name"] for each in report["validators"]] == ["perturbed", "perturbed+second-decode"]
    assert all(each["compute_s_per_hour"] > 1 for each in report["validators"])
    assert report["material"]["labels"] == 2
    assert [why.split(":")[0] for why in report["material"]["skipped"].values()] == ["truncated"]
    areas = {each["name"]: each["area"]["value"] for each in report["validators"][0]["filters"]}
    assert 0 <= areas["evidence"] <= 0.5
    lines = [json.loads(line) for line in (out / "labels.jsonl").read_text("utf-8").splitlines()]
    assert all(line["text"] and len(line["hypotheses"]) == 2 for line in lines)  # of both perturbations
