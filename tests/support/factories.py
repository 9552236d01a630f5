"""A lake that holds a finished batch, made with the real parts but no model: tones for audio, invented transcripts."""

from collections.abc import Sequence

import numpy as np

from k2d import audio
from k2d.documents import BatchOptions
from k2d.filtering.evidence import weigh
from k2d.keys import digest
from k2d.labeling.request import make_batch
from k2d.labeling.validate import facts_of
from k2d.schema import (
    SAMPLE_RATE_HZ,
    Batch,
    Chunk,
    Hypothesis,
    ModelInfo,
    Outcome,
    QuarantineReason,
    Recording,
    RecordingResult,
    Samples,
    Segment,
    Source,
)
from k2d.settings import Settings
from k2d.store import Lake

TEACHER = ModelInfo("openai/whisper-large-v2", "a" * 64, "ctranslate2", "float16", "cuda")
VALIDATOR = ModelInfo("openai/whisper-base", "b" * 64, "ctranslate2", "int8", "cpu")
VALIDATORS = f"model:{VALIDATOR.reference}"
# teacher, validator: agreement, disagreement, teacher loop, agreement
TEXTS = (
    ("今天這堂課我們先來 review 一下", "今天這堂課我們先來 review 一下"),
    ("把 gradient 算出來", "八個人出來"),
    ("謝謝大家收看" * 8, "謝謝大家"),
    ("deadline 是下禮拜五", "deadline 是下禮拜五"),
)


def tone(seconds: float, hz: float = 440.0) -> Samples:
    """A sine at half of full scale."""
    t = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return np.round(16_000 * np.sin(2 * np.pi * hz * t)).astype(np.int16)


def segment(start_s: float, end_s: float, text: str) -> Segment:
    return Segment(start_s, end_s, text, (1, 2, 3), -0.25, 0.01, 1.1, 0.0, "zh-en")


def finished_batch(
    lake: Lake,
    *,
    name: str = "lectures",
    recordings: int = 2,
    texts: Sequence[tuple[str, str]] = TEXTS,
    names: Sequence[str] = (),
) -> Batch:
    """Store a batch of `recordings` recordings of 25 s with four 5 s chunks each, and one quarantined file."""
    names = names or [f"talk-{n}.wav" for n in range(recordings)]
    sources = [Source(names[n], f"lake://uploads/{n}", digest("upload", name, n)) for n in range(recordings)]
    sources.append(Source("z-broken.mp3", "lake://uploads/broken", digest("upload", name, "broken")))
    options = BatchOptions(name=name, teacher=TEACHER.reference, validator=VALIDATOR.reference)
    batch = make_batch(sources, options, Settings(_env_file=None))
    lake.batches.put(batch)
    for position in range(recordings):
        lake.batches.put_result(batch.id, _labeled(lake, batch, position, texts))
    lake.batches.put_result(
        batch.id,
        RecordingResult(
            recordings, "z-broken.mp3", Outcome.QUARANTINED, 0.0, reason=QuarantineReason.NOT_AUDIO, detail="garbage"
        ),
    )
    return batch


def _labeled(lake: Lake, batch: Batch, position: int, texts: Sequence[tuple[str, str]]) -> RecordingResult:
    name = batch.sources[position].name
    recording = Recording(f"rec_{digest(batch.name, position)[:24]}", 25.0, 400_000, 0.5, "wav, 16000 Hz, 1 channel")
    label_key, facts_key = digest("label", recording.id), digest("facts", recording.id)
    rows = []
    meta = {"label_key": label_key, "recording": recording, "teacher": TEACHER, "options": batch.options, "version": 1}
    with lake.labels.writer(label_key, meta) as writer:
        for index, (teacher, validator) in enumerate(texts):
            start = index * 6.0 + position * 0.1
            chunk = Chunk(index, (segment(start, start + 5.0, teacher),))
            writer.write(chunk, audio.encode_flac(tone(5.0, 300.0 + 50 * index)))
            hypotheses = (Hypothesis(VALIDATORS, "as is", validator, -0.4, (-0.5,)),)
            weighed = weigh(chunk.segments, hypotheses)
            rows.append(
                facts_of(
                    chunk, hypotheses, weighed, facts_key=facts_key, recording_id=recording.id, validators=VALIDATORS
                )
            )
    hypotheses_key = digest("hypotheses", recording.id)
    lake.hypotheses.write(hypotheses_key, ((row.index, row.hypotheses) for row in rows), {"label_key": label_key})
    meta |= {
        "validator": VALIDATOR,
        "validator_name": VALIDATORS,
        "perturbations": ["as is"],
        "hypotheses": [hypotheses_key],
    }
    lake.facts.write(facts_key, rows, meta)
    return RecordingResult(position, name, Outcome.LABELED, 25.0, recording.id, label_key, facts_key, wall_s=2.5)
