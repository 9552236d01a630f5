"""The store whose pages docs/console.md shows: the sample audio, its texts as labels, made-up hypotheses and results.

Everything is made with the real parts but no model, and comes out the same every time: what a model would have heard is
the spoken text with typical mishearings, drawn with a fixed seed; times are fixed at the end.
"""

import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from factories import TEACHER, VALIDATOR, VALIDATORS
from places import EXAMPLES

from k2d import audio
from k2d.corpus.calibration.desk import calibrate_draw, next_segments, store_review
from k2d.corpus.calibration.draws import make_draw, open_draw
from k2d.datasets.freeze import freeze
from k2d.documents import BatchOptions, ReviewItem, ReviewRequest
from k2d.filtering.distance import counts
from k2d.filtering.evidence import weigh
from k2d.filtering.policy import DEFAULT
from k2d.keys import chunk_id, digest
from k2d.labeling.request import make_batch
from k2d.labeling.validate import facts_of
from k2d.schema import (
    SAMPLE_RATE_HZ,
    Batch,
    Chunk,
    Hypothesis,
    NoLabel,
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
from k2d.store.access import AccessRole
from k2d.store.reviews import ReviewOrder
from k2d.store.runs import EvaluatedLine, EvaluatedModel, PublishedRun, Rate, RunCurves, RunEvaluation
from k2d.text.reading import read

DAY = "2026-11-20"  # of everything in the store
POSTED = {"lectures-2026-11": "08:05", "interviews": "08:40", "podcasts": "09:10", "standups": "09:15"}
MISHEARD = {
    "baseline": "base line", "percent": "person", "function": "functions", "list": "least", "user": "using",
    "puppy": "happy", "adopt": "adapt", "commitment": "comment", "correlation": "collation", "concept": "concert",
    "batch size": "bad size", "podcast": "pot cast", "cache": "cash", "documentary": "document", "butter": "better",
    "profiling": "filing", "review": "view", "gradient descent": "gradient decent", "deadline": "dead line",
    "sample size": "simple size", "pull request": "pool request", "learning rate": "running rate", "agenda": "gender",
    "robot": "Robert", "churn rate": "turn rate", "accuracy": "a crazy", "想清楚": "想起初", "記憶體": "記一起",
    "深海生物": "身還生物", "大家": "打架", "問題": "文體", "參數": "餐數", "昨天": "作天", "鋼琴": "剛琴",
    "下禮拜五": "下禮拜",
}  # fmt: skip
KEYS = {
    "ada": AccessRole.ADMIN,
    "ben": AccessRole.OPERATOR,
    "chen": AccessRole.REVIEWER,
    "trainer": AccessRole.VIEWER,
}
TIMES = re.compile(r"20\d\d-\d\d-\d\d(?:(T)\d\d:\d\d:\d\d)?")


@dataclass(frozen=True)
class Spoken:
    """A sentence of the sample audio."""

    text: str
    samples: Samples  # int16, (n,)

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class ConsoleStore:
    """What is in the store, and where its pages lie."""

    lake: Lake
    key: str  # an admin's
    chunk: str
    calibrated: str  # a draw with all its reviews
    calibration: str
    begun: str  # a draw in which somebody has begun


def console_store(root: Path) -> ConsoleStore:
    """Write the store into a folder that does not exist."""
    lake = Lake(str(root))
    lake.check()
    lecture, clips = _spoken()
    rng = random.Random(7)
    talks = {
        "week-1/monday.ogg": lecture,
        "week-1/thursday.ogg": rng.sample(lecture, len(lecture)),
        "week-2/monday.ogg": rng.sample(lecture, len(lecture)),
        **{f"questions/{name}": [clip] for name, clip in clips.items() if name != "no-speech.flac"},
        "week-2/break.flac": [clips["no-speech.flac"]],
    }
    lectures = _batch(lake, "lectures-2026-11", talks, rng, broken="week-2/thursday.ogg")
    interviews = _batch(lake, "interviews", {"ms-lin.flac": lecture[4:10], "mr-chen.flac": lecture[8:]}, rng)
    _waiting(lake, "podcasts", 24)
    lake.batches.cancel(_waiting(lake, "standups", 3).id)
    calibrated = make_draw(lake, [lectures], DEFAULT, count=150, seed=1, order=ReviewOrder.RANDOM).id
    _review(lake, calibrated, lecture + list(clips.values()), most=1000)
    calibration = calibrate_draw(lake, open_draw(lake, calibrated), target=0.15, confidence=0.9, name="mine", by="ada")
    begun = make_draw(lake, [interviews], DEFAULT, count=20, seed=1, order=ReviewOrder.VALUE).id
    _review(lake, begun, lecture, most=5)
    freeze(lake, name="lectures-v1", batches=[lectures.id], policy=DEFAULT)
    freeze(lake, name="all-strict", batches=[lectures.id, interviews.id], policy=DEFAULT.varied(alpha=0.1))
    _runs(lake, lecture + list(clips.values()), rng)
    secrets = [lake.access.create(name, role, created_by="ada")[1] for name, role in KEYS.items()]
    lake.access.revoke("trainer")
    for action, by, target in (
        ("create key", "local:ada", "/keys/ben"),
        ("post", "ben", f"/v1/batches/{lectures.id}"),
        ("post", "ben", f"/v1/batches/{interviews.id}"),
        ("draw", "chen", f"/review/{calibrated}"),
        ("calibrate", "chen", f"/review/{calibrated}/calibrations"),
        ("freeze", "ben", "/v1/datasets/lectures-v1"),
        ("cancel", "ben", "/batches/standups/cancel"),
    ):
        lake.audit_log.record(action, by=by, target=target, status=200, address="10.0.0.7")
    _fix_times(root)
    store = Lake(str(root))
    monday = next(result for result in store.batches.results(lectures.id) if result.name == "week-1/monday.ogg")
    return ConsoleStore(store, secrets[0], chunk_id(monday.facts_key, 1), calibrated, calibration.id, begun)


# ---- speech ----------------------------------------------------------------------------------------------------------


def _spoken() -> tuple[list[Spoken], dict[str, Spoken]]:
    """The sentences of the sample lecture, and the single clips by file name."""
    rows = [json.loads(line) for line in (EXAMPLES / "manifest.jsonl").read_text("utf-8").splitlines()]
    lecture, clips = [], {}
    for row in rows:
        if row.get("broken"):
            continue
        samples = np.concatenate(list(audio.blocks(EXAMPLES / row["audio"])))
        if row["audio"] != "lecture.ogg":
            clips[row["audio"]] = Spoken(row["text"], samples)
            continue
        for part in row["segments"]:
            start, end = (round(part[name] * SAMPLE_RATE_HZ) for name in ("start", "end"))
            if part["text"]:
                lecture.append(Spoken(part["text"], samples[start:end]))
    return lecture, clips


def _misheard(text: str, share: float, rng: random.Random) -> str:
    """The text with about this share of what can be misheard in it."""
    for word, other in MISHEARD.items():
        if word in text and rng.random() < share:
            text = text.replace(word, other)
    return text


# ---- batches ---------------------------------------------------------------------------------------------------------


def _batch(
    lake: Lake, name: str, talks: dict[str, Sequence[Spoken]], rng: random.Random, *, broken: str | None = None
) -> Batch:
    sources = [Source(talk, f"lake://uploads/{talk}", digest("upload", name, talk)) for talk in talks]
    sources += [Source(broken, f"lake://uploads/{broken}", digest("upload", name, broken))] if broken else []
    options = BatchOptions(name=name, teacher=TEACHER.reference, validator=VALIDATOR.reference)
    batch = make_batch(sources, options, Settings(_env_file=None))
    batch = replace(batch, created_at=f"{DAY}T{POSTED[name]}:00+00:00")
    lake.batches.put(batch)
    for position, source in enumerate(batch.sources):
        if source.name == broken:
            reason, detail = QuarantineReason.TRUNCATED, "The file is cut off: 2.6 s of the declared 5.7 s are there."
            result = RecordingResult(position, source.name, Outcome.QUARANTINED, 2.6, reason=reason, detail=detail)
        else:
            result = _labeled(lake, batch, position, talks[source.name], rng)
        lake.batches.put_result(batch.id, result)
    return batch


def _waiting(lake: Lake, name: str, recordings: int) -> Batch:
    sources = [Source(f"{n:02d}.mp3", f"lake://uploads/{name}/{n}", digest(name, n)) for n in range(recordings)]
    options = BatchOptions(name=name, teacher=TEACHER.reference, validator=VALIDATOR.reference)
    batch = make_batch(sources, options, Settings(_env_file=None))
    batch = replace(batch, created_at=f"{DAY}T{POSTED[name]}:00+00:00")
    lake.batches.put(batch)
    return batch


def _labeled(lake: Lake, batch: Batch, position: int, talk: Sequence[Spoken], rng: random.Random) -> RecordingResult:
    """A recording in which the sentences follow one another, two of them in a chunk."""
    length = sum(spoken.seconds + 0.4 for spoken in talk)
    recording_id = f"rec_{digest(batch.name, position)[:24]}"
    recording = Recording(recording_id, length, round(length * SAMPLE_RATE_HZ), 0.5, "48000 Hz, 1 channel")
    label_key, facts_key = digest("label", recording.id), digest("facts", recording.id)
    meta = {"label_key": label_key, "recording": recording, "teacher": TEACHER, "options": batch.options, "version": 1}
    rows = []
    with lake.labels.writer(label_key, meta) as writer:
        for chunk, hypothesis, samples in _chunks(talk, rng):
            writer.write(chunk, audio.encode_flac(samples))
            weighed = weigh(chunk.segments, (hypothesis,))
            facts = facts_of(
                chunk, (hypothesis,), weighed, facts_key=facts_key, recording_id=recording.id, validators=VALIDATORS
            )
            rows.append(facts)
    hypotheses_key = digest("hypotheses", recording.id)
    lake.hypotheses.write(hypotheses_key, ((row.index, row.hypotheses) for row in rows), {"label_key": label_key})
    meta |= {"validator": VALIDATOR, "validator_name": VALIDATORS, "perturbations": ["as is"]}
    lake.facts.write(facts_key, rows, meta | {"hypotheses": [hypotheses_key]})
    name = batch.sources[position].name
    gaps_ms = round(length * 1000) - sum(round(row.duration_s * 1000) for row in rows)
    return RecordingResult(
        position,
        name,
        Outcome.LABELED,
        length,
        recording.id,
        label_key,
        facts_key,
        wall_s=length / 9,
        no_label=NoLabel(pauses_ms=gaps_ms - gaps_ms // 3, sound_ms=gaps_ms // 3),
    )


def _chunks(talk: Sequence[Spoken], rng: random.Random) -> Iterator[tuple[Chunk, Hypothesis, Samples]]:
    start_s = 0.2
    for index, pair in enumerate(talk[at : at + 2] for at in range(0, len(talk), 2)):
        segments, heard, logprobs, pieces = [], [], [], []
        for spoken in pair:
            error = rng.choice((0.0, 0.0, 0.1, 0.3))  # of the teacher
            doubt = rng.choice((0.0, 0.2, 0.4, 0.7, 1.0))  # of the validator
            label, text = _misheard(spoken.text, error, rng), _misheard(spoken.text, doubt, rng)
            if rng.random() < 0.2:  # noise: the validator hears little, and something else
                text, doubt, error = rng.choice(("嗯對對對", "okay so 那個", text[: len(text) // 3])), 2.0, error + 0.5
            if not spoken.text:  # music: a phrase that the teacher makes up
                label, text, error, doubt = "謝謝大家收看，請訂閱我的頻道。", "", 1.0, 1.0
            logprob = round(-0.12 - 0.8 * error - rng.random() / 5, 3)
            end_s = start_s + spoken.seconds
            segments.append(Segment(start_s, end_s, label, (1, 2, 3), logprob, 0.01, 1.1, 0.0, "zh-en"))
            heard.append(text)
            logprobs.append(round(-0.3 - 1.5 * error - 0.8 * doubt * rng.random(), 3))
            pieces += [spoken.samples, np.zeros(round(0.4 * SAMPLE_RATE_HZ), np.int16)]
            start_s = end_s + 0.4
        hypothesis = Hypothesis(VALIDATORS, "as is", " ".join(heard), logprobs[0], tuple(logprobs))
        first, last = segments[0].start_s, segments[-1].end_s
        samples = np.concatenate(pieces)[: round((last - first) * SAMPLE_RATE_HZ)]
        yield Chunk(index, tuple(segments)), hypothesis, samples


# ---- reviews and runs ------------------------------------------------------------------------------------------------


def _review(lake: Lake, draw: str, speech: Sequence[Spoken], *, most: int) -> None:
    """Say of a draw's first segments what is said in them."""
    while most and (items := next_segments(lake, draw, reviewer="chen", limit=min(most, 50)).segments):
        most -= len(items)
        for item in items:
            _say(lake, draw, item, speech)


def _say(lake: Lake, draw: str, item: ReviewItem, speech: Sequence[Spoken]) -> None:
    said = min((spoken.text for spoken in speech), key=lambda text: _edits(text, item.label) / (1 + len(text)))
    verdict = "nothing" if "訂閱" in item.label else "text" if _edits(said, item.label) else "right"
    request = ReviewRequest(
        id=f"{draw}-{item.number:05d}",
        segment=item.id,
        verdict=verdict,
        reference=said if verdict == "text" else None,
        draw=draw,
        seconds=6.0,
    )
    store_review(lake, request, reviewer="chen")


def _edits(text: str, other: str) -> int:
    return counts(read(text).tokens, read(other).tokens).edits


def _runs(lake: Lake, speech: Sequence[Spoken], rng: random.Random) -> None:
    steps = list(range(10, 2001, 10))
    decay = [math.exp(-step / 350) for step in steps]
    noise = [rng.gauss(0, 0.04) for _ in steps]
    loss = [round(0.62 + 2.6 * own + 0.4 * wave, 3) for own, wave in zip(decay, noise, strict=True)]
    at = f"{DAY}T09:30:00+00:00"
    run = PublishedRun(
        name="first", run_id="1", state="done", started_at=at, updated_at=at, steps=2000, step=2000,
        dataset="lectures-v1", dataset_digest=lake.datasets.manifest("lectures-v1").digest, dataset_hours=0.07,
        teacher=TEACHER.reference,
        student=[{"part": "encoder", "teacher_layers": 32, "student_layers": 32},
                 {"part": "decoder", "teacher_layers": 32, "student_layers": 2}],
        recipe={"steps": 2000, "learning_rate": 1e-4, "temperature": 2.0}, machine={"device": "cuda", "gpu": "one GPU"},
        k2d_version="0.3.0", loss=loss[-1], mer=0.137, best_mer=0.131, best_step=1800,
    )  # fmt: skip
    lake.runs.put(run)
    lake.runs.put(run.model_copy(update={"name": "two-layers", "run_id": "2", "state": "stopped", "step": 640}))
    training = {
        "step": steps, "loss": loss, "ce": [round(0.7 * own, 3) for own in loss],
        "kl": [round(0.3 * own + 0.2 * fall, 3) for own, fall in zip(loss, decay, strict=True)],
        "learning_rate": [1e-4 * min(1, step / 200) * (1 - step / 2500) for step in steps],
        "gradient_norm": [round(0.8 + 3 * own + abs(wave) * 4, 3) for own, wave in zip(decay, noise, strict=True)],
        "tokens_per_s": [round(5200 + 900 * wave) for wave in noise],
    }  # fmt: skip
    validated = steps[19::20]
    mers = [round(0.13 + 0.5 * math.exp(-step / 400), 3) for step in validated]
    lake.runs.put_curves("first", RunCurves(stride=10, training=training, validation={"step": validated, "mer": mers}))
    models = [
        EvaluatedModel(
            reference=name, repetitions=0, real_time=speed, parameters=size,
            rates={"MER": Rate(value=mer, low=mer - 0.02, high=mer + 0.025), "English WER": Rate(value=mer + 0.05)},
        )
        for name, mer, speed, size in (
            (TEACHER.reference, 0.094, 14.0, 1_540_000_000), ("first", 0.131, 66.0, 756_000_000),
        )
    ]  # fmt: skip
    lines = []
    for number, spoken in enumerate(own for own in speech if own.text):
        texts = [_misheard(spoken.text, 0.15, rng), _misheard(spoken.text, 0.6, rng)]
        lines.append(
            EvaluatedLine(
                name=f"question-{number:02d}.flac", language="zh-en", seconds=round(spoken.seconds, 2), has_clip=True,
                reference=spoken.text, hypotheses=texts, edits=[_edits(text, spoken.text) for text in texts],
                tokens=[len(read(spoken.text).tokens)] * 2,
            )
        )  # fmt: skip
    order = sorted(range(len(lines)), key=lambda number: -lines[number].edits[1])
    spoken_lines = [own for own in speech if own.text]
    evaluation = RunEvaluation(
        name="questions", created_at=at, language="zh-en", utterances=len(lines),
        seconds=sum(line.seconds for line in lines), models=models, lines=[lines[number] for number in order],
    )  # fmt: skip
    lake.runs.put_evaluation("first", "questions", evaluation)
    for place, number in enumerate(order):
        lake.runs.put_clip("first", "questions", place, audio.encode_flac(spoken_lines[number].samples))


# ---- times -----------------------------------------------------------------------------------------------------------


def _fix_times(root: Path) -> None:
    """Give what was made just now in a local store a fixed time, so that its pages look the same every time."""
    folders = ("draws", "datasets", "access", "reviews")
    for path in [own for folder in folders for own in sorted((root / folder).rglob("*.json"))]:
        text = path.read_text("utf-8")
        minute = next((at for at, name in enumerate(KEYS) if f'"name":"{name}"' in text.replace(": ", ":")), 30)
        path.write_text(_fixed(text, minute), "utf-8")
    for log in (root / "audit-log").glob("*.jsonl"):
        text = _fixed(log.read_text("utf-8"), 30)
        log.unlink()
        (log.parent / f"{DAY}.jsonl").write_text(text, "utf-8")


def _fixed(text: str, minute: int) -> str:
    return TIMES.sub(lambda time: f"{DAY}T09:{minute:02d}:00" if time[1] else DAY, text)
