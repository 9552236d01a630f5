"""`k2d policy`: list, show, explain, check, diff."""

import json

import pytest
from typer.testing import CliRunner

from k2d.cli import commands  # noqa: F401 — registers them
from k2d.cli.base import app, policy
from k2d.errors import BadRequest
from k2d.filtering.policy import DEFAULT, PAPER, PRESETS, from_yaml, to_yaml
from k2d.schema import Metric

RUN = CliRunner()


def k2d(*arguments):
    return RUN.invoke(app, ["policy", *arguments])


def test_presets_are_listed_and_shown_as_the_files_they_are():
    assert [row["policy"]["name"] for row in json.loads(k2d("list", "--json").output)] == list(PRESETS)
    for name, preset in PRESETS.items():
        assert name in k2d("list").output
        assert from_yaml(k2d("show", name).output) == preset
        assert json.loads(k2d("show", name, "--json").output)["key"] == preset.key


def test_explain_says_what_is_claimed():
    assert "no label error is promised" in k2d("explain", "evidence").output
    assert "composite" not in k2d("explain", "paper").output  # words, not names of fields


def test_check_names_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(to_yaml(DEFAULT), "utf-8")
    assert DEFAULT.key in k2d("check", "mine.yaml").output
    for text, complaint in (("alpha: 2", "alpha"), ("alhpa: 0.4", "alhpa"), ("- 1", "mapping"), ("a: [", "YAML")):
        (tmp_path / "bad.yaml").write_text(text, "utf-8")
        failed = k2d("check", "bad.yaml")
        assert isinstance(failed.exception, BadRequest)
        assert complaint in str(failed.exception)
    assert isinstance(k2d("check", "missing.yaml").exception, BadRequest)


def test_diff_shows_what_differs_and_nothing_else():
    changed = json.loads(k2d("diff", "evidence", "paper", "--json").output)
    assert changed["metric"] == ["evidence", "composite"]
    assert "version" not in changed
    assert "no difference" in k2d("diff", "paper", "paper").output


def test_a_command_line_s_policy_is_a_preset_or_a_file_varied(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(PAPER.varied(alpha=0.3)), "utf-8")
    assert policy() == DEFAULT
    assert policy("paper") == PAPER
    assert policy(str(path)).alpha == 0.3
    assert policy(str(path), Metric.MER, 0.2) == PAPER.varied(metric=Metric.MER, alpha=0.2)
    for wrong in ("default", "./none.yaml"):
        with pytest.raises(BadRequest):
            policy(wrong)
    with pytest.raises(BadRequest, match="between 0 and 1"):
        policy("paper", alpha=1.5)
