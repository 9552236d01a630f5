"""The files of a study."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from trainer.evaluation import report_files as files
from trainer.evaluation.bootstrap import COVERED
from trainer.study.about import About
from trainer.study.blocks import html, markdown
from trainer.study.checks import checks
from trainer.study.figures import Cut, Study
from trainer.study.judge import DRAWN
from trainer.study.pictures import pictures
from trainer.study.study_report import document

JSON: Final = "report.json"
LABELS: Final = "labels.jsonl"
FORMAT: Final = 1  # of report.json


def prepare(folder: Path) -> None:
    """Make the folder and see that it can be written.

    Raises:
        StoreError: it cannot.
    """
    files.prepare(folder, LABELS)


def write(study: Study, about: About, folder: Path) -> None:
    """Write labels.jsonl (every label with its texts), pictures, report.md, report.html, and report.json last.

    Raises:
        StoreError: the folder cannot be written.
    """
    prepare(folder)
    drawn, told = pictures(study), document(study, about)
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in label_lines(study))
    documents = {
        LABELS: lines.encode(),
        **drawn,
        "report.md": markdown(told).encode(),
        "report.html": html(told, drawn).encode(),
        JSON: (json.dumps(as_json(study, about), ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode(),
    }
    files.put(folder, documents)


def as_json(study: Study, about: About) -> dict[str, Any]:
    """The whole study as JSON values; no transcript."""
    walked = study.walked
    return {
        "format": FORMAT,
        "about": asdict(about),
        "draws": study.how.draws,
        "seed": study.how.seed,
        "covered": COVERED,
        "material": {
            "recordings": walked.recordings,
            "seconds": round(walked.seconds_in, 3),
            "labels": len(walked.labels),
            "label_seconds": round(float(walked.labels.seconds.sum()), 3),
            "total_failures": study.failures,
            "unlabeled": walked.unlabeled,
            "set_aside": walked.aside,
        },
        "checks": [asdict(one) for one in checks(study)],
        "validator_sets": [
            {
                "name": found.validators.name,
                "validators": found.validators.validators,
                "fingerprint": found.validators.fingerprints[1],
                "compute_s_per_hour": found.validators.cost_s,
                "filters": [asdict(one) for one in found.figures],
                "curves": {
                    one.name: [round(float(value), 5) for value in found.ranked.drawn[0, at]]
                    for at, one in enumerate(found.filters)
                },
                "difference_to_first": asdict(pair),
            }
            for found, pair in zip(study.validator_sets, study.across, strict=True)
        ],
        "shares": [round(float(share), 4) for share in DRAWN],  # of the curves
        "cuts": [_cut(one) for one in study.cuts],
        "own_alpha": [_cut(one) for one in study.own],
        "compared": [asdict(one) for one in study.compared],
        "groups": [
            {
                "by": group.by,
                "name": group.name,
                "labels": group.labels,
                "seconds": round(group.seconds, 3),
                "filters": [asdict(one) for one in group.figures],
                "own_alpha": [_cut(one) for one in group.cuts],
            }
            for group in study.groups
        ],
        "survivors": [asdict(one) for one in study.survivors],
        "salvage": [asdict(one) for one in study.salvage],
    }


def label_lines(study: Study) -> list[dict[str, Any]]:
    """Every label with its reference, its truth, and every score of the first validators."""
    labels, first = study.walked.labels, study.first
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
            "heard": [one.text for one in facts.hypotheses],
            "scores": {one.name: round(float(one.score[row]), 5) for one in first.filters},
            "rejected": [one.name for one in first.filters if one.rejected[row]],
        }
        for row, (name, facts, truth) in enumerate(
            zip(labels.names, first.validators.facts, study.walked.truths, strict=True)
        )
    ]


def _cut(one: Cut) -> dict[str, Any]:
    found = asdict(one)
    mean, low, high = one.random
    return found | {"random": {"value": mean, "low": low, "high": high}}
