"""Labels, facts and references made up for the study's tests: 24 labels of 8 recordings, one of them long."""

import numpy as np

from k2d.filtering.evidence import weigh
from k2d.filtering.policy import columns_of, evidence_columns
from k2d.schema import ChunkFacts, Hypothesis, Segment
from trainer.study.table import Labels, numbered
from trainer.study.truth import of_clip
from trainer.study.walk import LENGTHS, Segments, Validators, Walked

SAID = (
    "今天我們來 review 這個 deadline",
    "老師說下禮拜要交 final report",
    "我覺得這個方法很好",
    "please send me the slides",
)


def fact(index, text, heard, *, start_s=0.0, logprob=-0.2, facts_key="f" * 32):
    """The facts of a label of two segments: the text and a filler that nobody expected_token_errors."""
    segments = (segment(start_s, start_s + 3.0, text, logprob), segment(start_s + 3.5, start_s + 5.0, " 謝謝", logprob))
    hypotheses = tuple(Hypothesis("model:small", "as is", f"{one} 謝謝", -0.3, (logprob * 2, -0.1)) for one in heard)
    weighed = weigh(segments, hypotheses)
    return ChunkFacts(
        id=f"{facts_key}-{index:05d}",
        recording_id="rec",
        index=index,
        start_s=start_s,
        end_s=start_s + 5.0,
        teacher_text=text + " 謝謝",
        segments=segments,
        validator="model:small",
        hypotheses=hypotheses,
        distances=weighed.distances,
        evidence=weighed.evidence,
        segment_evidence=weighed.segment_evidence,
    )


def segment(start_s, end_s, text, logprob):
    return Segment(start_s, end_s, text, (1, 2, 3), logprob, 0.01, 1.1, 0.0, "zh-en")


def walked(*, validator_sets=("small", "perturbed"), recordings=8):
    """Labels of growing error; the last recording is a loop where nothing is said."""
    random = np.random.default_rng(3)
    rows, truths, groups = [], [], []
    for number in range(3 * recordings):
        recording, said = number // 3, SAID[number % len(SAID)]
        if recording == recordings - 1:
            rows.append((number, "我" * 40, said))
            references = ("",)
        else:
            wrong = int(random.integers(0, len(said) // 2))
            rows.append((number, "錯" * wrong + said[wrong:], said))
            references = (f"{said} 謝謝",)
        facts = fact(*rows[-1][:2], (said,), logprob=-0.1 - 0.1 * (number % 5))
        truths.append((facts, of_clip(facts, references)))
        groups.append(recording)
    labels = _labels(truths, groups)
    made = tuple(_panel(name, truths, at) for at, name in enumerate(validator_sets))
    return Walked(labels, tuple(truth for _, truth in truths), made, {"set: x": "no reference"}, {}, 150.0, recordings)


def _labels(truths, groups):
    tallies = [truth.tally for _, truth in truths]
    return Labels(
        names=tuple(
            f"set: {group}.flac, chunk {facts.index}" for group, (facts, _) in zip(groups, truths, strict=True)
        ),
        seconds=np.array([facts.duration_s for facts, _ in truths]),
        edits=np.array([float(tally.mixed.edits) for tally in tallies]),
        tokens=np.array([float(tally.mixed.reference_length) for tally in tallies]),
        switch_edits=np.array([float(tally.switch.edits) for tally in tallies]),
        switch_tokens=np.array([float(tally.switch.reference_length) for tally in tallies]),
        groups=numbered(groups),
        kinds={
            "set": np.array(["set"] * len(truths)),
            "language": np.array(["zh-en" if tally.switch.reference_length else "zh" for tally in tallies]),
            "length": np.array([LENGTHS[group % 2] for group in groups]),
            "code mixing": np.array(["(0, 0.1]" if tally.said else "nothing said" for tally in tallies]),
        },
    )


def _panel(name, truths, at):
    facts = tuple(one for one, _ in truths)
    columns = columns_of([one.distances for one in facts], [one.evidence for one in facts])
    if at:  # another validator hears worse
        columns["disagreement_middle"] = np.clip(columns["disagreement_middle"] + 0.3, 0, 1).astype(np.float32)
    counts = [one for _, truth in truths for one in truth.segments]
    return Validators(
        name=name,
        validators=f"model:{name}",
        fingerprints=("a" * 16, "b" * 16),
        teacher="packaged:whisper-base",
        columns=columns,
        segments=Segments(
            owner=np.repeat(np.arange(len(facts)), 2),
            seconds=np.tile([3.0, 1.5], len(facts)),
            edits=np.array([float(one.edits) for one in counts]),
            tokens=np.array([float(one.reference_length) for one in counts]),
            columns=evidence_columns([one for facts in facts for one in facts.segment_evidence]),
        ),
        facts=facts,
        cost_s=123.0 + at,
    )


__all__ = ["fact", "walked"]
