"""A killed worker's successor goes on where it stopped: it asks models only for what is not in the journal."""

import asyncio
import gzip
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import killed_labeling
import numpy as np
import pytest
from buckets import OPTIONS, new_bucket
from killed_labeling import Asked, label
from weights import base

from k2d.errors import AudioError, ModelError, StoreError
from k2d.labeling import journal as journals
from k2d.labeling.journal import Journal, JournaledTranscriber
from k2d.schema import DecodeOptions, Piece, QuarantineReason, TextScore, Window, WindowResult
from k2d.store import Lake
from k2d.store.check import check
from k2d.store.usage import usage

KEY = "4f1d" * 8
RECORDING = "rec_0f3c9a1be2d47c5512345678"


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "folder":
        return Lake(str(tmp_path / "lake"))
    s3: str = request.getfixturevalue("s3")
    return Lake(f"s3://{new_bucket(s3)}/lake", endpoint_url=s3, **OPTIONS)


def shards(store: Path) -> dict[str, bytes]:
    """Labels, hypotheses and facts by their paths."""
    paths = [path for folder in ("labels", "hypotheses", "facts") for path in (store / folder).rglob("*.parquet")]
    return {str(path.relative_to(store)): path.read_bytes() for path in paths}


def test_a_kill_costs_no_answer_and_changes_no_byte(tmp_path: Path, examples: Path) -> None:
    base()
    lecture = examples / "lecture.ogg"
    whole = Asked()
    undisturbed = label(tmp_path / "whole", lecture, whole)
    assert undisturbed.worked_s == pytest.approx(undisturbed.duration_s)

    store = tmp_path / "killed"
    for stage, number in (("label", 5), ("label", 5), ("validate", 2)):
        command = [sys.executable, killed_labeling.__file__, str(store), str(lecture), stage, str(number)]
        killed = subprocess.run(command, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((store / "journals").rglob("*.json.gz"))

    rest = Asked()
    result = label(store, lecture, rest)
    assert rest.counts["label"] == 0
    assert 0 < rest.counts["validate"] < whole.counts["validate"]
    validated = rest.counts["validate"] / whole.counts["validate"]  # all labels and the other chunks were there already
    assert result.worked_s == pytest.approx(validated * result.duration_s / 2, abs=0.01)
    assert shards(store) == shards(tmp_path / "whole")
    assert not list((store / "journals").rglob("*.gz"))


class Model:
    """Answers with the number of the question."""

    model = None

    def __init__(self) -> None:
        self.asked = 0

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        self.asked += 1
        piece = Piece(0.0, 1.1, f" {self.asked}", (1, 2))
        return WindowResult(piece.text, (1, 2, 3), (piece,), 0.1 + 0.2, -0.1, 1e-30, 1.5, 0.0, "zh")

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        self.asked += 1
        return TextScore((self.asked,), (float("-inf"), -1 / 3), float("-inf"))

    async def close(self) -> None:
        """Nothing to do."""


def window(seed: int, prompt: tuple[int, ...] = ()) -> Window:
    return Window(np.random.default_rng(seed).integers(-999, 999, 16_000).astype(np.int16), prompt)


async def asked(lake: Lake, model: Model, *seeds: int, error: BaseException | None = None) -> list[str]:
    """Ask for windows within a journal, whose block then raises `error`; the texts of the answers."""
    texts: list[str] = []
    with suppress(BaseException if error is not None else ()):
        async with Journal(lake.journals, KEY, recording_id=RECORDING) as journal:
            teacher = JournaledTranscriber(model, journal)  # type: ignore[arg-type]
            texts = [(await teacher.transcribe(window(seed), DecodeOptions())).text for seed in seeds]
            if error is not None:
                raise error
    return texts


def texts_of(lake: Lake, model: Model, *seeds: int) -> list[str]:
    return asyncio.run(asked(lake, model, *seeds))


def stop(lake: Lake, model: Model, *seeds: int, error: BaseException | None = None) -> None:
    """Ask for windows, and be stopped then."""
    asyncio.run(asked(lake, model, *seeds, error=error or asyncio.CancelledError()))


def test_every_answer_is_that_of_its_own_question(lake: Lake) -> None:
    model = Model()

    async def ask() -> list[object]:
        async with Journal(lake.journals, KEY, recording_id=RECORDING) as journal:
            teacher = JournaledTranscriber(model, journal)  # type: ignore[arg-type]
            answers: list[object] = [
                await teacher.transcribe(window(seed, prompt), DecodeOptions(beam_size=beams))
                for seed in (1, 2)
                for prompt in ((), (5,))
                for beams in (1, 5)
            ]
            answers += [await teacher.score(window(1), text, DecodeOptions()) for text in ("今天", "")]
            if model.asked == 10 and not lake.files.listing("journals"):
                raise ModelError("the server is gone")
            return answers

    with pytest.raises(ModelError):
        asyncio.run(ask())
    [part] = lake.files.listing("journals")
    again = asyncio.run(ask())
    assert model.asked == 10  # nothing was asked twice
    assert again[0] == WindowResult(
        " 1", (1, 2, 3), (Piece(0.0, 1.1, " 1", (1, 2)),), 0.1 + 0.2, -0.1, 1e-30, 1.5, 0.0, "zh"
    )
    assert [answer.text for answer in again[:8]] == [f" {number}" for number in range(1, 9)]  # type: ignore[attr-defined]
    assert again[9] == TextScore((10,), (float("-inf"), -1 / 3), float("-inf"))
    assert not lake.files.exists(part)


def test_a_transcriber_says_whether_its_latest_text_was_there(lake: Lake) -> None:
    model = Model()
    stop(lake, model, 1, 2)

    async def ask() -> list[bool]:
        async with Journal(lake.journals, KEY, recording_id=RECORDING) as journal:
            teacher, recalled = JournaledTranscriber(model, journal), []  # type: ignore[arg-type]
            for seed in (1, 2, 3):
                await teacher.transcribe(window(seed), DecodeOptions())
                recalled.append(teacher.recalled)
            return recalled

    assert asyncio.run(ask()) == [True, True, False]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ModelError("gone"), RuntimeError("a fault of ours")])
def test_what_stops_work_keeps_its_answers(lake: Lake, error: BaseException) -> None:
    model = Model()
    stop(lake, model, 1, 2, error=error)
    assert texts_of(lake, model, 1, 2, 3) == [" 1", " 2", " 3"]
    assert model.asked == 3
    assert not lake.files.listing("journals")


def test_audio_that_cannot_be_used_leaves_no_journal(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "STORED_EVERY_S", 0.0)
    stop(lake, Model(), 1, error=AudioError("damaged", reason=QuarantineReason.DAMAGED))
    assert not lake.files.listing("journals")


def test_work_of_less_than_a_minute_writes_no_journal(lake: Lake) -> None:
    texts_of(lake, Model(), 1)
    assert not lake.files.exists("journals")


def test_a_store_that_is_full_for_a_while_costs_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "STORED_EVERY_S", 0.0)
    append, failures = lake.journals.append, [StoreError("no space left")] * 2

    def full(*args: Any, **options: Any) -> None:
        if failures:
            raise failures.pop()
        append(*args, **options)

    monkeypatch.setattr(lake.journals, "append", full)
    model = Model()
    stop(lake, model, 1, 2, 3)
    assert not failures
    assert texts_of(lake, model, 1, 2, 3) == [" 1", " 2", " 3"]


def test_a_store_that_does_not_answer_at_the_end_costs_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(lake, Model(), 1)

    def silent(key: str) -> None:
        raise StoreError("the store did not answer")

    monkeypatch.setattr(lake.journals, "remove", silent)
    assert texts_of(lake, Model(), 1) == [" 1"]


DAMAGED = {
    "empty": b"",
    "no gzip": b"\x1f\x8b\x08\x00 nothing",
    "no JSON": gzip.compress(b"{"),
    "without answers": gzip.compress(b'{"recording_id": "rec"}'),
    "a list": gzip.compress(b"[]"),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_part_is_asked_for_again_and_found_by_the_check(lake: Lake, data: bytes) -> None:
    def damage() -> str:
        stop(lake, Model(), 1, 2)
        [part] = lake.files.listing("journals")
        lake.files.write(part, data)
        return part

    part = damage()
    [fault] = [fault for fault in check(lake).findings if fault.kind == "journal"]
    assert fault.path == part
    model = Model()
    assert texts_of(lake, model, 1, 2) == [" 1", " 2"]
    assert model.asked == 2
    assert not lake.files.listing("journals")

    damage()
    check(lake, repair=True)
    assert not lake.files.listing("journals")


def test_answers_of_another_form_are_asked_for_again(lake: Lake) -> None:
    stop(lake, Model(), 1)
    answers = lake.journals.read(KEY) or {}
    lake.journals.append(KEY, {question: {"text": 3} for question in answers}, recording_id=RECORDING)
    model = Model()
    assert texts_of(lake, model, 1) == [" 1"]
    assert model.asked == 1


def test_journals_are_counted_swept_and_forgotten(lake: Lake) -> None:
    stop(lake, Model(), 1)
    assert [row.kind for row in usage(lake.files)] == ["answers for unfinished recordings"]
    assert lake.sweep() == 0  # a week has not passed
    assert lake.journals.sweep(older_than_s=-1.0) == 1
    stop(lake, Model(), 1)
    assert len(lake.journals.parts_of("rec_" + "0" * 24)) == 0
    (part,) = lake.journals.parts_of(RECORDING)
    lake.files.remove(part)
