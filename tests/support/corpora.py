"""Lakes with thousands of segments whose truth is known: simulated evidence in real shards, real ledgers."""

from dataclasses import fields, replace

import numpy as np

from k2d.keys import chunk_id, digest, segment_id
from k2d.schema import (
    Batch,
    Chunk,
    ChunkFacts,
    Counts,
    Distances,
    Evidence,
    Hypothesis,
    LongformOptions,
    ModelInfo,
    Outcome,
    RecordingResult,
    Segment,
    Source,
)
from k2d.store import Lake

MODEL = ModelInfo("packaged:whisper-base", "d" * 64, "ctranslate2", "int8", "cpu")
WORDS = "今天這堂課我們先來看一下昨天說過的那個問題然後再把答案寫在黑板上面"


def evidence(**changes) -> Evidence:
    """Of a label that nothing speaks against: twelve Mandarin tokens in three seconds."""
    plain = {field.name: field.type(0) for field in fields(Evidence)}
    plain |= {"duration_s": 3.0, "zh_tokens": 12, "phonemes": 24, "forced_logprob": -0.25, "avg_logprob": -0.25}
    plain |= {"compression_ratio": 1.0, "teacher_repetition": 1, "hypothesis_repetition": 1, "loops": 1}
    return Evidence(**(plain | changes))


def simulated(
    lake: Lake, *, recordings: int = 30, name: str = "simulated", seed: int = 0, mixed_risk: float = 0.0
) -> tuple[Batch, dict[str, str]]:
    """A finished batch: 8 chunks of 4 segments a recording; the true text of every segment by its id.

    A segment's disagreement follows its hidden error, its log-probability does too but less. Every second recording
    is code-switched (half its tokens English) and disagreed with more by `mixed_risk`.
    """
    rng = np.random.default_rng(seed)
    sources = tuple(
        Source(f"{'ab'[n % 2]}/talk-{n}.flac", f"file:///{n}", digest(name, n), 1) for n in range(recordings)
    )
    batch = Batch(
        f"b_{digest(name)[:16]}",
        name,
        sources,
        MODEL.reference,
        "perturbed",
        LongformOptions(),
        "2026-11-23T00:00:00+00:00",
    )
    lake.batches.put(batch)
    truth: dict[str, str] = {}
    for n, source in enumerate(sources):
        key, label_key, recording_id = digest("f", name, n), digest("l", name, n), f"rec_{digest(name, n)[:24]}"
        facts = [
            _chunk(rng, key, recording_id, index, mixed=n % 2 == 1, extra=mixed_risk, truth=truth) for index in range(8)
        ]
        lake.facts.write(key, facts, {"label_key": label_key, "teacher": MODEL, "validator": MODEL, "version": 3})
        lake.batches.put_result(
            batch.id, RecordingResult(n, source.name, Outcome.LABELED, 100.0, recording_id, label_key, key, wall_s=1.0)
        )
    return batch, truth


def _chunk(rng, key, recording_id, index, *, mixed, extra, truth) -> ChunkFacts:
    segments, segment_evidence = [], []
    for number in range(4):
        start = index * 12.5 + number * 3.0
        bad = rng.random() < 0.2
        error = rng.uniform(0.3, 1.0) if bad else 0.0
        tokens = [WORDS[i] for i in rng.integers(0, len(WORDS), 12)]
        if mixed:
            tokens[::2] = ["word"] * 6
        right = [("錯" if rng.random() < error else token) for token in tokens]
        truth[segment_id(chunk_id(key, index), number)] = " ".join(right)
        disagreement = float(np.clip(0.8 * error + rng.normal(0.05, 0.05) + (extra if mixed else 0.0), 0, 1).round(4))
        forced_logprob = -float(np.clip(0.2 + 0.5 * error + rng.normal(0, 0.1), 0.01, 3).round(4))
        segments.append(Segment(start, start + 3.0, " ".join(tokens), (), forced_logprob, 0.0, 1.0, 0.0, "zh-en"))
        zh = 6 if mixed else 12
        segment_evidence.append(
            evidence(
                disagreement_least=disagreement,
                disagreement_middle=disagreement,
                disagreement_most=disagreement,
                forced_logprob=forced_logprob,
                avg_logprob=forced_logprob,
                zh_tokens=zh,
                en_tokens=12 - zh,
                substituted=disagreement,
            )
        )
    chunk = Chunk(index, tuple(segments))
    mean = float(np.mean([one.disagreement_middle for one in segment_evidence]).round(4))
    whole = replace(
        segment_evidence[0],
        duration_s=12.0,
        phonemes=96,
        zh_tokens=4 * segment_evidence[0].zh_tokens,
        en_tokens=4 * segment_evidence[0].en_tokens,
        disagreement_least=mean,
        disagreement_middle=mean,
        disagreement_most=mean,
        forced_logprob=float(np.mean([one.forced_logprob for one in segment_evidence]).round(4)),
        avg_logprob=float(np.mean([one.avg_logprob for one in segment_evidence]).round(4)),
    )
    edits = round(48 * mean)
    return ChunkFacts(
        id=chunk_id(key, index),
        recording_id=recording_id,
        index=index,
        start_s=chunk.start_s,
        end_s=chunk.end_s,
        teacher_text=chunk.text,
        segments=chunk.segments,
        validators="perturbed:packaged:whisper-base",
        hypotheses=(Hypothesis("perturbed:packaged:whisper-base", "speed 1.12", chunk.text, -0.3, (-0.3,) * 4),),
        distances=Distances(
            Counts(48 - edits, edits, 0, 0),
            Counts(96 - 2 * edits, 2 * edits, 0, 0),
            1,
            1,
            None,
            whole.zh_tokens,
            whole.en_tokens,
        ),
        evidence=whole,
        segment_evidence=tuple(segment_evidence),
    )
