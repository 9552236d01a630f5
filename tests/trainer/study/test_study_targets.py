"""The project's own targets, from reports of made-up labels."""

import copy
import json
import runpy
import sys
from types import SimpleNamespace

import pytest
from labeled import labeled_material
from places import ROOT

from k2d.filtering.policy import DEFAULT, Policy, Weights
from k2d.settings import Settings
from trainer.study import study_files
from trainer.study.about import about
from trainer.study.figures import study
from trainer.study.resampling import BootstrapOptions

BENCH = ROOT / "bench" / "study_targets.py"
SETS = ("public", "real")


@pytest.fixture(scope="module")
def bench():
    return SimpleNamespace(**runpy.run_path(str(BENCH)))


def report(*, policy=DEFAULT, sets=SETS, greedy=False):
    result = study(labeled_material(sets=sets, rescored=not greedy), [policy], BootstrapOptions(draws=20))
    settings = Settings(beam_size=1, rescore=False) if greedy else Settings()
    text = json.dumps(study_files.as_json(result, about(result.labeled, result.policies, ["study"], settings)))
    return json.loads(text)


@pytest.fixture(scope="module")
def reports():
    return report(), report(greedy=True)


def holds(targets):
    return {(target.labels, target.asked): target.holds for target in targets}


def test_targets_are_for_all_recordings_and_for_each_set(bench, reports):
    targets = list(bench.label_targets(*reports))
    assert [target.labels for target in targets] == [name for name in ("all", *SETS) for _ in range(4)]
    assert all(target.holds is not None for target in targets)
    assert len({target.asked for target in targets}) == 4
    one_set = list(bench.label_targets(report(sets=("one",)), report(sets=("one",), greedy=True)))
    assert [target.labels for target in one_set] == ["all"] * 4


def scaled(document, part, factor):
    """The same report with the label MER of one set, or of all labels, times a factor in every figure of targets."""
    document = copy.deepcopy(document)
    groups = [group for group in document["groups"] if (group["by"], group["name"]) == ("set", part)]
    for figures in groups or document["validators"]:
        for each in figures["filters"]:
            each["area"]["value"] *= factor
        figures["curves"] = {name: [value * factor for value in curve] for name, curve in figures["curves"].items()}
    for at in groups[0]["own_alpha"] if groups else [*document["thresholds"], *document["own_alpha"]]:
        if at["mer_kept"]["value"] is not None:
            at["mer_kept"]["value"] *= factor
    return document


@pytest.mark.parametrize("part", ["all", *SETS])
@pytest.mark.parametrize(("factor", "expected"), [(0.01, True), (100.0, False)])
def test_better_labels_reach_them_and_worse_ones_do_not(bench, reports, part, factor, expected):
    new, greedy = reports
    plain = holds(bench.label_targets(new, greedy))
    found = holds(bench.label_targets(scaled(new, part, factor), greedy))
    assert {held for (name, _), held in found.items() if name == part} == {expected}
    assert all(held == plain[key] for key, held in found.items() if key[0] != part)


def test_at_100_percent_the_limit_is_eight_tenths(bench, reports):
    _, greedy = reports
    same = {**greedy, "about": reports[0]["about"]}
    for factor, expected in ((0.799, True), (0.801, False)):
        assert next(bench.label_targets(scaled(same, "all", factor), greedy)).holds is expected


def test_the_kept_error_is_read_at_87_percent_from_the_curve(bench, reports):
    figures = bench.by_set(reports[0])["all"]
    curve, shares = figures.curves["evidence"], figures.shares
    above = next(at for at, share in enumerate(shares) if share > 0.87)
    low, high = sorted(curve[above - 1 : above + 1])
    assert low <= figures.mer_at("evidence", 0.87) <= high
    assert figures.mer_at("evidence", shares[above]) == pytest.approx(curve[above])


def test_the_filter_alone_is_held_against_the_composite(bench, reports):
    blind = Policy(name="blind", metric="evidence", repetition_max=1000, weights=Weights(bias=-9.0))
    found = holds(bench.filter_targets(report(policy=blind)))
    assert found["all", "area of blind ≤ 0.80 × the composite's"] is False
    assert found["all", "no label with true MER > 1 kept at any α ≤ 0.6"] is False
    good = holds(bench.filter_targets(reports[0]))
    assert good["all", "no label with true MER > 1 kept at any α ≤ 0.6"] is True
    assert {name for name, _ in good} == {"all", *SETS}


def test_reports_that_do_not_fit_are_refused(bench, reports):
    new, _ = reports
    with pytest.raises(bench.ReportError, match="not of greedy labels"):
        list(bench.label_targets(new, new))
    with pytest.raises(bench.ReportError, match="different sets"):
        list(bench.label_targets(new, report(sets=("public", "other"), greedy=True)))


def test_a_report_of_an_earlier_format_tells_less(bench, reports):
    """Format 2 has no curves of sets."""
    new = copy.deepcopy(reports[0])
    for group in new["groups"]:
        del group["curves"]
    found = [target for target in bench.label_targets(new, reports[1]) if "87 %" in target.asked]
    assert [target.holds is None for target in found] == [False, True, True]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 99}'])
def test_other_files_are_refused(bench, tmp_path, content):
    file = tmp_path / "report.json"
    file.write_text(content, "utf-8")
    with pytest.raises(bench.ReportError, match=r"report\.json"):
        bench.load(file)


def test_the_command_prints_both_tables(reports, tmp_path, monkeypatch, capsys):
    for name, document in zip(("new.json", "greedy.json"), reports, strict=True):
        (tmp_path / name).write_text(json.dumps(document), "utf-8")
    arguments = [str(tmp_path / "new.json"), "--greedy", str(tmp_path / "greedy.json")]
    monkeypatch.setattr(sys, "argv", [str(BENCH), *arguments])
    runpy.run_path(str(BENCH), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.count("| labels | asked | found | holds |") == 2
    assert printed.index("against greedy labels") < printed.index("on the same labels")
    monkeypatch.setattr(sys, "argv", [str(BENCH), arguments[0]])
    runpy.run_path(str(BENCH), run_name="__main__")
    assert capsys.readouterr().out.count("| labels |") == 1
    monkeypatch.setattr(sys, "argv", [str(BENCH), arguments[0], "--greedy", arguments[0]])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCH), run_name="__main__")
    assert ended.value.code == 2
    assert "not of greedy labels" in capsys.readouterr().err
