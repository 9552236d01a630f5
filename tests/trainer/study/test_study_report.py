"""The study as a whole, over made-up labels: its tables, its files."""

import json
import re

import pytest
from labeled import labeled_material

from k2d.filtering.policy import DEFAULT, PAPER, Policy, Weights, decide
from k2d.settings import Settings
from trainer.evaluation.bootstrap import Band
from trainer.study import study_files as files
from trainer.study.about import about
from trainer.study.blocks import format_band, format_difference, format_percent, markdown
from trainer.study.figures import study
from trainer.study.filters import COMPOSITE, NGRAM, FilterKind, filters
from trainer.study.judge import ALPHAS
from trainer.study.resampling import BootstrapOptions
from trainer.study.study_report import document


@pytest.fixture(scope="module")
def found():
    return study(labeled_material(), [DEFAULT, PAPER], BootstrapOptions(draws=20))


def test_every_filter_of_the_project_is_there_under_its_own_name(found):
    names = [one.name for one in found.first.filters]
    assert len(set(names)) == len(names)
    assert {"no filter", NGRAM, "log-probability", "MER", "PER", COMPOSITE, "MER, bounded", "evidence", "paper"} <= set(
        names
    )
    assert found.first.best.name == "evidence"


@pytest.mark.parametrize("policy", [DEFAULT, PAPER], ids=lambda policy: policy.name)
def test_a_policy_accepts_here_what_it_accepts_anywhere(policy):
    columns = labeled_material().validators[0].chunks
    here = next(one for one in filters(columns, [DEFAULT, PAPER]) if one.name == policy.name)
    for alpha in (*ALPHAS, 0.0, 1.0):
        anywhere = decide(policy.model_copy(update={"alpha": alpha}), columns).accepted
        assert (here.accepts(alpha) == anywhere).all()


def test_distances_judge_second_decodes_texts_too_and_the_preset_refuses_them():
    columns = labeled_material(rescored=True).validators[0].chunks
    rescored, loops = columns["is_rescored"].astype(bool), columns["teacher_repetition"] > PAPER.repetition_max
    by_name = {one.name: one for one in filters(columns, [DEFAULT, PAPER])}
    assert rescored.any()
    assert (by_name["paper"].rejected == rescored | loops).all()
    for one in by_name.values():
        if one.kind is FilterKind.DISTANCE:
            assert not (one.rejected & rescored).any(), one.name


def test_policies_of_one_name_are_told_apart():
    other = Policy(name="evidence", metric="evidence", weights=Weights(bias=-3.0, disagreement=5.0))
    third = Policy(name="MER", metric="mer")
    names = [
        one.name
        for one in filters(labeled_material().validators[0].chunks, [DEFAULT, other, third])
        if one.kind is FilterKind.POLICY
    ]
    assert len(set(names)) == 3
    assert names[0] == "evidence"


def test_loops_where_nothing_is_said_are_total_failures_that_no_policy_keeps(found):
    assert found.failures == 3
    assert [one for one in found.kept_failures if one.policy == "evidence"] == []


def test_a_policy_that_keeps_everything_is_caught():
    blind = Policy(name="blind", metric="evidence", repetition_max=1000, weights=Weights(bias=-9.0))
    caught = study(labeled_material(), [blind], BootstrapOptions(draws=20))
    assert {one.name for one in caught.kept_failures if one.policy == "blind"} == set(caught.labeled.labels.names[-3:])
    assert all(one.alpha == ALPHAS[0] for one in caught.kept_failures if one.policy == "blind")


def test_salvage_adds_up_with_what_is_kept_whole(found):
    assert found.salvage
    for one in found.salvage:
        share = one.share
        assert share["together"].value == pytest.approx(share["whole"].value + share["salvaged"].value)
        assert share["together"].value <= 1
    cut = {one.alpha: one.share.value for one in found.thresholds if one.name == "evidence"}
    assert all(
        one.share["whole"].value == pytest.approx(cut[one.alpha]) for one in found.salvage if one.length == "all"
    )


def test_validators_are_compared_on_the_same_draws(found):
    assert found.across[0].difference == Band(0.0, 0.0, 0.0)
    assert len(found.validators) == len(found.across) == 2


def test_the_same_seed_gives_the_same_report(found, tmp_path):
    again = study(labeled_material(), [DEFAULT, PAPER], BootstrapOptions(draws=20))
    described = about(found.labeled, found.policies, ["study", "m.jsonl"], Settings())
    assert files.as_json(again, described) == files.as_json(found, described)


def test_the_report_stands_alone_and_holds_no_transcript(found, tmp_path):
    described = about(found.labeled, found.policies, ["study", "a set/manifest.jsonl", "--seed", "0"], Settings())
    files.write(found, described, tmp_path)
    page, told = ((tmp_path / name).read_text("utf-8") for name in ("report.html", "report.md"))
    assert told.startswith("`k2d study 'a set/manifest.jsonl' --seed 0`, teacher packaged:whisper-base (aaaa")
    assert "with beam size 5, rescored" in told
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", told)
    assert len(pictures) == page.count("data:image/png;base64,") == 4
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert "http" not in page
    assert "<script" not in page
    texts = [one.teacher_text for one in found.first.validators.facts]
    assert not any(text in page or text in told for text in texts)
    tables = re.findall(r"(?:^\|.*\|\n)+", told, re.MULTILINE)
    assert len(tables) == page.count("<table>") > 8
    assert all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables)
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text("utf-8").splitlines()]
    assert [line["text"] for line in lines] == texts
    assert all(line["teacher_text"] is None for line in lines)
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert [one["name"] for one in report["validators"]] == ["small", "perturbed"]
    assert report["validators"][1]["compute_s_per_hour"] == 124.0
    shown = report["groups"][0]["filters"]
    assert all(len(report["groups"][0]["curves"][one["name"]]) == len(report["shares"]) for one in shown)


# ---- what a reader gets first -------------------------------------------------------------------------------------


def headings(page):
    return re.findall(r"^## (.+)$", page, re.MULTILINE)


def first_table(page, heading):
    """The rows of the first table under a heading, as dicts; of equal columns the last counts."""
    lines = page.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def page_of(result):
    return markdown(document(result, about(result.labeled, result.policies, ["study"], Settings())))


def test_the_page_begins_with_the_reader_s_sets():
    result = study(labeled_material(sets=("mine", "yours")), [DEFAULT], BootstrapOptions(draws=20))
    page = page_of(result)
    assert headings(page)[:2] == ["What each filter keeps", "How to read this"]
    rows = first_table(page, "What each filter keeps")
    assert [(row["set"], row["filter"]) for row in rows] == [
        (name, shown) for name in ("all sets", "mine", "yours") for shown in ("no filter", "evidence", COMPOSITE)
    ]
    at = {(row["set"], row["filter"]): row for row in rows}
    own = result.own_alpha[0]
    assert at["all sets", "evidence"]["α"] == f"{own.alpha:g}"
    assert at["all sets", "evidence"]["hours kept"] == format_percent(own.share)
    assert at["all sets", "evidence"]["label MER"] == format_band(own.mer_kept)
    assert at["all sets", COMPOSITE]["α"] == "0.4"
    assert "On mine and yours (24 labels" in page
    assert "all sets" not in page_of(study(labeled_material(), [DEFAULT], BootstrapOptions(draws=20)))


def test_the_page_has_no_targets_of_the_project(found):
    page = page_of(found)
    assert not re.search(r"\btargets?\b|\| holds \|", page, re.IGNORECASE)
    assert "checks" not in files.as_json(found, about(found.labeled, found.policies, ["study"], Settings()))


def test_what_second_decodes_changed_is_told():
    result = study(labeled_material(rescored=True), [DEFAULT], BootstrapOptions(draws=20))
    page = page_of(result)
    assert headings(page)[1] == "What second decodes changed"
    (row,) = first_table(page, "What second decodes changed")
    assert row["labels with a second decode's text"] == "6"
    assert "of the hours have a second decode's text: label MER 0.000 there instead of" in page
    lines = files.label_lines(result)
    assert sum(line["teacher_text"] is not None for line in lines) == 6
    assert all(line["teacher_text"] != line["text"] or line["edits"] == 0 for line in lines)


def test_figures_are_written_with_their_bands():
    assert format_band(Band(0.1234, 0.1009, 0.1501)) == "0.123 [0.101–0.150]"
    assert format_band(Band(0.5, None, None)) == "0.500"
    assert format_band(Band(None, None, None)) == "–"
    assert format_difference(Band(-0.01234, -0.02, -0.004)) == "-0.012 [-0.020 to -0.004]"
    assert format_percent(Band(0.714, 0.65, 0.77)) == "71 % [65–77]"
