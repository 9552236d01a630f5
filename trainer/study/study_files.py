"""Writes the files of a study."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from trainer.evaluation import report_files
from trainer.evaluation.bootstrap import COVERED
from trainer.study.about import About
from trainer.study.blocks import html, markdown
from trainer.study.judge import DRAWN
from trainer.study.pictures import pictures
from trainer.study.results import FilterFigures, LabelGroup, Study, ThresholdFigures, ValidatorFigures
from trainer.study.study_report import document
from trainer.study.table import Floats
from trainer.study.truth import teacher_text

JSON: Final = "report.json"
LABELS: Final = "labels.jsonl"
# Of report.json. 2: validators (1: panels), their full_name (listeners), thresholds (cuts), comparisons (compared),
# kept_failures (survivors), skipped (set_aside), salvage's share and mer (inside part); in labels.jsonl hypotheses
# (heard). 3: without checks; with rescoring, groups' curves, about's beam_size and rescore, the composite in own_alpha;
# in labels.jsonl teacher_text
FORMAT: Final = 3


def prepare(folder: Path) -> None:
    """Make the folder and check that it can be written.

    Raises:
        StoreError: it cannot.
    """
    report_files.prepare(folder, LABELS)


def write(study: Study, about: About, folder: Path) -> None:
    """Write labels.jsonl (every label with its texts), pictures, report.md, report.html, and report.json last.

        write(result, about(labeled, policies, sys.argv[1:]), Path("study"))

    Raises:
        StoreError: the folder cannot be written.
    """
    prepare(folder)
    images, report = pictures(study), document(study, about)
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in label_lines(study))
    files = {
        LABELS: lines.encode(),
        **images,
        "report.md": markdown(report).encode(),
        "report.html": html(report, images).encode(),
        JSON: (json.dumps(as_json(study, about), ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode(),
    }
    report_files.put(folder, files)


def as_json(study: Study, about: About) -> dict[str, Any]:
    """The whole study as JSON values, without transcripts."""
    labeled = study.labeled
    return {
        "format": FORMAT,
        "about": asdict(about),
        "draws": study.options.draws,
        "seed": study.options.seed,
        "covered": COVERED,
        "material": {
            "recordings": labeled.recordings,
            "seconds": round(labeled.seconds_in, 3),
            "labels": len(labeled.labels),
            "label_seconds": round(float(labeled.labels.seconds.sum()), 3),
            "total_failures": study.failures,
            "unlabeled": labeled.unlabeled,
            "skipped": labeled.skipped,
        },
        "validators": [
            {**_validators(figures), "difference_to_first": asdict(pair)}
            for figures, pair in zip(study.validators, study.across, strict=True)
        ],
        "shares": [round(float(share), 4) for share in DRAWN],  # of the curves
        "thresholds": [_threshold(figures) for figures in study.thresholds],
        "own_alpha": [_threshold(figures) for figures in study.own_alpha],
        "comparisons": [asdict(comparison) for comparison in study.comparisons],
        "groups": [_group(group) for group in study.groups],
        "kept_failures": [asdict(failure) for failure in study.kept_failures],
        "salvage": [asdict(figures) for figures in study.salvage],
        "rescoring": [asdict(figures) for figures in study.rescoring],
    }


def label_lines(study: Study) -> list[dict[str, Any]]:
    """Every label with its reference, its errors, and every score with the first validators."""
    labels, first = study.labeled.labels, study.first
    rows = zip(labels.names, first.validators.facts, study.labeled.truths, strict=True)
    return [
        {
            "label": name,
            "chunk": facts.id,
            **{kind: str(values[row]) for kind, values in labels.kinds.items()},
            "seconds": round(float(labels.seconds[row]), 3),
            "edits": int(labels.edits[row]),
            "tokens": int(labels.tokens[row]),
            "reference": truth.reference,
            "text": facts.teacher_text,
            "teacher_text": teacher_text(facts),  # None: that is the text
            "hypotheses": [hypothesis.text for hypothesis in facts.hypotheses],
            "scores": {each.name: round(float(each.score[row]), 5) for each in first.filters},
            "rejected": [each.name for each in first.filters if each.rejected[row]],
        }
        for row, (name, facts, truth) in enumerate(rows)
    ]


def _validators(figures: ValidatorFigures) -> dict[str, Any]:
    return {
        "name": figures.validators.name,
        "full_name": figures.validators.full_name,
        "fingerprint": figures.validators.fingerprints[1],
        "compute_s_per_hour": figures.validators.cost_s,
        "filters": [asdict(each) for each in figures.figures],
        "curves": _curves(figures.figures, figures.draws.drawn[0]),
    }


def _group(group: LabelGroup) -> dict[str, Any]:
    return {
        "by": group.by,
        "name": group.name,
        "labels": group.labels,
        "seconds": round(group.seconds, 3),
        "filters": [asdict(figures) for figures in group.figures],
        "curves": _curves(group.figures, group.curves),
        "own_alpha": [_threshold(figures) for figures in group.own_alpha],
    }


def _curves(figures: Sequence[FilterFigures], curves: Floats) -> dict[str, list[float]]:
    """By the filter's name; `curves` has shape (figures, DRAWN)."""
    return {each.name: [round(float(value), 5) for value in curve] for each, curve in zip(figures, curves, strict=True)}


def _threshold(figures: ThresholdFigures) -> dict[str, Any]:
    mean, low, high = figures.random
    return asdict(figures) | {"random": {"value": mean, "low": low, "high": high}}
