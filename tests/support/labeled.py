"""Made-up labels, facts and references for the study's tests: 24 labels of 8 recordings, one of them long."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from k2d.filtering.evidence import weigh
from k2d.filtering.policy import columns_of, evidence_columns
from k2d.schema import ChunkFacts, Hypothesis, Segment
from trainer.study.labeling import LENGTHS, LabeledMaterial, SegmentTable, ValidatorLabels
from trainer.study.table import LabelTable, number_groups
from trainer.study.truth import LabelTruth, truth_of_clip

SENTENCES = (
    "今天我們來 review 這個 deadline",
    "老師說下禮拜要交 final report",
    "我覺得這個方法很好",
    "please send me the slides",
)


def chunk_facts(
    index: int,
    text: str,
    hypotheses: Sequence[str],
    *,
    start_s: float = 0.0,
    logprob: float = -0.2,
    teacher: str | None = None,
) -> ChunkFacts:
    """The facts of a label of two segments: the text, and a filler that every validator confirms.

    `teacher`: the text is a second decode's, and this is the teacher's own.
    """
    first = segment(start_s, start_s + 3.0, text, logprob)
    if teacher is not None:
        first = replace(first, origin="second decode, beam 5", teacher_text=teacher)
    segments = (first, segment(start_s + 3.5, start_s + 5.0, " 謝謝", logprob))
    from_validator = tuple(
        Hypothesis("model:small", "as is", f"{hypothesis} 謝謝", -0.3, (logprob * 2, -0.1)) for hypothesis in hypotheses
    )
    weighed = weigh(segments, from_validator)
    return ChunkFacts(
        id=f"{'f' * 32}-{index:05d}",
        recording_id="rec",
        index=index,
        start_s=start_s,
        end_s=start_s + 5.0,
        teacher_text=text + " 謝謝",
        segments=segments,
        validators="model:small",
        hypotheses=from_validator,
        distances=weighed.distances,
        evidence=weighed.evidence,
        segment_evidence=weighed.segment_evidence,
    )


def segment(start_s: float, end_s: float, text: str, logprob: float) -> Segment:
    return Segment(start_s, end_s, text, (1, 2, 3), logprob, 0.01, 1.1, 0.0, "zh-en")


def labeled_material(
    *,
    validators: Sequence[str] = ("small", "perturbed"),
    recordings: int = 8,
    sets: Sequence[str] = ("set",),
    rescored: bool = False,
) -> LabeledMaterial:
    """Labels with more and more errors; the last recording is a loop where nothing is said.

    `sets` take turns, recording by recording. `rescored`: of labels 0, 4, 8 … a second decode wrote the text, without
    an error; the teacher's own is the label that they have otherwise.
    """
    random = np.random.default_rng(3)
    rows, groups = [], []
    for number in range(3 * recordings):
        recording, sentence = number // 3, SENTENCES[number % len(SENTENCES)]
        if recording == recordings - 1:
            text, reference = "我" * 40, ""
        else:
            wrong = int(random.integers(0, len(sentence) // 2))
            text, reference = "錯" * wrong + sentence[wrong:], f"{sentence} 謝謝"
        teacher = text if rescored and reference and number % 4 == 0 else None
        if teacher is not None:
            text = sentence
        facts = chunk_facts(number, text, (sentence,), logprob=-0.1 - 0.1 * (number % 5), teacher=teacher)
        rows.append((facts, truth_of_clip(facts, (reference,))))
        groups.append(recording)
    return LabeledMaterial(
        labels=_label_table(rows, groups, sets),
        truths=tuple(truth for _, truth in rows),
        validators=tuple(_validator_labels(name, rows, at) for at, name in enumerate(validators)),
        skipped={"set: x": "no reference"},
        unlabeled={},
        seconds_in=150.0,
        recordings=recordings,
    )


def _label_table(
    rows: Sequence[tuple[ChunkFacts, LabelTruth]], groups: Sequence[int], sets: Sequence[str]
) -> LabelTable:
    errors = [truth.errors for _, truth in rows]
    set_names = [sets[group % len(sets)] for group in groups]
    names = zip(set_names, groups, (facts.index for facts, _ in rows), strict=True)
    return LabelTable(
        names=tuple(f"{name}: {group}.flac, chunk {index}" for name, group, index in names),
        seconds=np.array([facts.duration_s for facts, _ in rows]),
        edits=np.array([float(each.mixed.edits) for each in errors]),
        tokens=np.array([float(each.mixed.reference_length) for each in errors]),
        switch_edits=np.array([float(each.switch.edits) for each in errors]),
        switch_tokens=np.array([float(each.switch.reference_length) for each in errors]),
        groups=number_groups(groups),
        kinds={
            "set": np.array(set_names),
            "language": np.array(["zh-en" if each.switch.reference_length else "zh" for each in errors]),
            "length": np.array([LENGTHS[group % 2] for group in groups]),
            "code mixing": np.array(["(0, 0.1]" if each.has_speech else "nothing said" for each in errors]),
        },
    )


def _validator_labels(name: str, rows: Sequence[tuple[ChunkFacts, LabelTruth]], at: int) -> ValidatorLabels:
    all_facts = tuple(facts for facts, _ in rows)
    columns = columns_of([facts.distances for facts in all_facts], [facts.evidence for facts in all_facts])
    if at:  # the other validators agree less
        columns["disagreement_middle"] = np.clip(columns["disagreement_middle"] + 0.3, 0, 1).astype(np.float32)
    edits = [counts for _, truth in rows for counts in truth.segments]
    return ValidatorLabels(
        name=name,
        full_name=f"model:{name}",
        fingerprints=("a" * 16, "b" * 16),
        teacher="packaged:whisper-base",
        chunks=columns,
        spans=SegmentTable(
            owner=np.repeat(np.arange(len(all_facts)), 2),
            seconds=np.tile([3.0, 1.5], len(all_facts)),
            edits=np.array([float(counts.edits) for counts in edits]),
            tokens=np.array([float(counts.reference_length) for counts in edits]),
            columns=evidence_columns([evidence for facts in all_facts for evidence in facts.segment_evidence]),
        ),
        facts=all_facts,
        cost_s=123.0 + at,
    )
