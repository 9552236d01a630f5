"""From transcripts to reports: groups, pairs, the worst, what is skipped; the pages have what they should.

The models here are stubs that return a text for each clip; transcribing with weights is an integration test.
"""

import asyncio
import html as markup
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from k2d.audio import decode_flac
from k2d.errors import BadRequest, ModelError, NotFound, StoreError
from k2d.schema import SAMPLE_RATE_HZ, DecodeOptions, LongformOptions, ModelInfo, Piece, Window, WindowResult
from k2d.settings import load
from k2d.store import Lake
from k2d.store.runs import PublishedRun
from trainer.commands import eval as printed
from trainer.evaluation import evaluate as evaluating
from trainer.evaluation import publish
from trainer.evaluation.eval_report import EvaluationReport
from trainer.evaluation.evaluate import EvaluationOptions, evaluate
from trainer.evaluation.manifests import JsonLines
from trainer.evaluation.render import html, markdown
from trainer.evaluation.report_files import write
from trainer.evaluation.size import ModelSize
from trainer.evaluation.transcribe_set import transcribe_set

TRUTH = ["我們 review 一下", "hello world", "", "天氣很好 <b>|x|</b> 嗎", "我用 GPU 算", "今天天氣很好 deadline 明天"]
STUDENT = ["我們 view 一下", "hello world", "謝謝收看", "天氣很好", "我用 GPU 算", "今天天氣很好 deadline 明天"]


class StubModel:
    """Knows clips by their length, 0.5 s + 0.1 s for each number."""

    def __init__(self, name: str, texts: list[str], fails: bool = False) -> None:
        self.model = ModelInfo(name, name[0] * 64, "ctranslate2", "int8", "cpu")
        self.texts = {self._length(number): text for number, text in enumerate(texts)}
        self.fails = fails
        self.closed = False

    @staticmethod
    def _length(number: int) -> int:
        return round((0.5 + 0.1 * number) * SAMPLE_RATE_HZ)

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        if self.fails:
            raise ModelError("out of memory")
        await asyncio.sleep(0)
        text = self.texts.get(len(window.samples), "warm-up")
        seconds = len(window.samples) / SAMPLE_RATE_HZ
        piece = Piece(0.0, seconds, f" {text}", (1, 2, 3))
        return WindowResult(text, (9, 1, 2, 3, 9), (piece,), None, -0.2, 0.0, 1.0, 0.2, options.language)

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def clips(tmp_path: Path) -> JsonLines:
    """A clip for each of `TRUTH`, one that is no audio, and one that nobody knows the words of."""
    rows = [{"audio": f"{n}.flac", "text": text, "base_id": f"r{min(n, 4)}"} for n, text in enumerate(TRUTH)]
    for number in range(len(TRUTH)):
        noise = np.random.default_rng(number).integers(-900, 900, StubModel._length(number)).astype(np.int16)
        soundfile.write(tmp_path / f"{number}.flac", noise, SAMPLE_RATE_HZ, subtype="PCM_16")
    (tmp_path / "broken.flac").write_bytes(b"no audio")
    rows += [{"audio": "broken.flac", "text": "x"}, {"audio": "0.flac", "id": "unknown"}]
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return JsonLines(path)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str, StubModel]:
    known = {
        "teacher": StubModel("teacher", TRUTH),
        "twin": StubModel("twin", TRUTH),
        "student": StubModel("student", STUDENT),
        "broken": StubModel("broken", [], fails=True),
    }

    async def opened(reference: str, settings: object) -> StubModel:
        return known[reference]

    monkeypatch.setattr(evaluating, "open_transcriber", opened)
    monkeypatch.setattr(evaluating, "size_of", lambda reference, settings: ModelSize(72_000_000, 145.2))
    return known


def run(clips: JsonLines, *models: str, **options: int) -> EvaluationReport:
    return evaluate(models, clips, load(), options=EvaluationOptions(draws=200, **options))


def test_the_printed_tables_cut_no_name_at_80_columns(clips: JsonLines, models: dict[str, StubModel]) -> None:
    names = ("packaged:whisper-base", "demo-output/run/student")
    for name, stub in zip(names, ("teacher", "student"), strict=True):
        models[name] = models[stub]
    console = Console(width=80, file=io.StringIO())
    report = run(clips, *names)
    console.print(printed._table(report), printed._speeds(report))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    for whole in ("packaged:whisper-base", "demo-output/run/student", "parameters, M", "MB on disk", "72.0"):
        assert whole in text


def test_the_numbers_by_hand(clips: JsonLines, models: dict[str, StubModel]) -> None:
    report = run(clips, "teacher", "student")
    teacher, student = report.models
    # tokens said: 5, 2, 0, 8 (<b> and </b> are remarks, so 天氣很好 x 嗎 has 6), 4, 9
    assert student.figures["mer"].counts.reference_length == 5 + 2 + 6 + 4 + 9
    assert student.figures["mer"].counts.edits == 1 + 0 + 4 + 2  # view; nothing; 謝謝收看; x 嗎
    assert student.figures["mer_speech"].counts.edits == 3
    assert student.figures["mer"].rate.value == 7 / 26
    assert teacher.figures["mer"].counts.edits == 0
    assert student.figures["mer"].difference.value == 7 / 26
    assert teacher.figures["mer"].difference is None
    assert (teacher.text_without_speech, student.text_without_speech) == (0, 1)
    assert report.set.without_speech == 1
    assert report.set.embedded_language == "en"
    assert (report.set.utterances, report.set.recordings) == (6, 5)  # two clips of one recording
    assert report.set.seconds == pytest.approx(sum(0.5 + 0.1 * n for n in range(6)))
    assert student.speed.windows == 6  # the warm-up is not among them
    assert student.speed.tokens == 6 * 6
    assert student.speed.retried == 6
    assert all(model.closed for name, model in models.items() if name in ("teacher", "student"))


def test_what_cannot_be_scored_is_skipped_and_named(clips: JsonLines, models: dict[str, StubModel]) -> None:
    report = run(clips, "teacher")
    assert report.set.skipped["unknown"] == "no reference"
    assert report.set.skipped["broken.flac"].startswith("not_audio")
    assert len(report.set.skipped) == 2


def test_the_same_model_has_no_difference(clips: JsonLines, models: dict[str, StubModel]) -> None:
    report = run(clips, "teacher", "twin")
    for figure in report.models[1].figures.values():
        assert (figure.difference.value, figure.difference.low, figure.difference.high) == (0.0, 0.0, 0.0)
    assert report.worst == ()


def test_groups_add_up(clips: JsonLines, models: dict[str, StubModel]) -> None:
    report = run(clips, "teacher", "student")
    for by in ("language", "length"):
        groups = [group for group in report.groups if group.by == by]
        assert sum(group.utterances for group in groups) == 6
        assert sum(group.figures["mer"][1].counts.edits for group in groups) == 7
    named = {group.name: group for group in report.groups}
    assert named["none"].figures["mer"][1].rate.value is None  # nothing to divide by
    assert named["none"].figures["mer"][1].counts.insertions == 4
    assert named["en"].utterances == named["0"].utterances == 1
    assert [group.name for group in report.groups if group.by == "code mixing"] == ["0", "(0.1, 0.25]"]


def test_the_worst_come_first_with_their_differences(clips: JsonLines, models: dict[str, StubModel]) -> None:
    report = run(clips, "teacher", "student", worst=2)
    assert [line.name for line in report.worst] == ["2.flac", "3.flac"]
    assert [(piece.op, piece.reference, piece.hypothesis) for piece in report.worst[0].diffs[1]] == [
        ("insert", "", "謝謝收看")
    ]
    assert len(report.lines) == 6
    assert not report.lines[0].diffs


def test_a_limit_takes_the_first(clips: JsonLines, models: dict[str, StubModel]) -> None:
    assert run(clips, "teacher", limit=2).set.utterances == 2


def test_pages_show_it_safely(clips: JsonLines, models: dict[str, StubModel]) -> None:
    report = run(clips, "teacher", "student")
    page, text = html(report), markdown(report)
    assert "<b>" not in page.split("<body>")[1]
    assert markup.escape(TRUTH[3]) in page
    assert not re.search(r"(src|href)=|https?:|<script", page)  # nothing beside it is needed
    assert "26.92" in page  # 7 / 26
    assert "26.92" in text
    assert "\\|x\\|" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 6  # errors, differences, speed, three kinds of groups
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


def test_files_are_written_whole(clips: JsonLines, models: dict[str, StubModel], tmp_path: Path) -> None:
    report = run(clips, "teacher", "student")
    write(report, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert document["models"][1]["figures"]["mer"]["counts"]["insertions"] == 4
    assert document["models"][1]["speed"]["real_time"] > 0
    lines = (tmp_path / "out" / "utterances.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["hypotheses"][1] for line in lines] == STUDENT
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="no report can be written"):
        write(report, tmp_path / "file" / "out")


def test_what_makes_no_sense_is_refused(clips: JsonLines, models: dict[str, StubModel], tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="at least one model"):
        run(clips)
    with pytest.raises(BadRequest, match="each once"):
        run(clips, "teacher", "teacher")
    with pytest.raises(ModelError, match="out of memory"):
        run(clips, "broken")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(BadRequest, match="no utterance"):
        run(JsonLines(empty), "teacher")
    twice = tmp_path / "twice.jsonl"
    twice.write_text('{"audio": "0.flac", "text": "x"}\n' * 2, "utf-8")
    with pytest.raises(BadRequest, match="two utterances called"):
        run(JsonLines(twice), "teacher")
    twice.write_text('{"audio": "broken.flac", "text": "x"}\n', "utf-8")
    with pytest.raises(BadRequest, match="none of the 1 utterances"):
        run(JsonLines(twice), "teacher")


def test_one_window_each_skips_longer_ones(tmp_path: Path, models: dict[str, StubModel]) -> None:
    soundfile.write(tmp_path / "long.wav", np.ones(31 * SAMPLE_RATE_HZ, np.int16), SAMPLE_RATE_HZ)
    soundfile.write(tmp_path / "0.wav", np.ones(StubModel._length(0), np.int16), SAMPLE_RATE_HZ)
    soundfile.write(tmp_path / "none.wav", np.ones(10, np.int16), SAMPLE_RATE_HZ)
    path = tmp_path / "clips.jsonl"
    rows = [
        {"audio": "long.wav", "text": "x"},
        {"audio": "0.wav", "text": TRUTH[0]},
        {"audio": "none.wav", "offset": 5, "duration": 2, "text": "x"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    transcripts = asyncio.run(
        transcribe_set(models["teacher"], JsonLines(path).utterances(), LongformOptions(), long_form=False, at_once=2)
    )
    assert transcripts.transcripts["0.wav"].text == TRUTH[0]
    assert {name: why.split(":")[0] for name, why in transcripts.skipped.items()} == {
        "long.wav": "too_long",
        "none.wav@5.000": "too_short",
    }
    sequential = asyncio.run(
        transcribe_set(models["teacher"], JsonLines(path).utterances(), LongformOptions(), long_form=True, at_once=2)
    )
    assert sequential.speed.audio_s == pytest.approx(31.5)
    assert sequential.speed.windows == 3


def test_an_evaluation_is_published_with_its_worst_clips(
    clips: JsonLines, models: dict[str, StubModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MOST_CLIPS", 2)
    lake = Lake(str(tmp_path / "lake"))
    report = run(clips, "teacher", "student")
    with pytest.raises(NotFound, match="no run is called"):
        publish.publish_evaluation(lake, "first", report, clips)
    moment = "2026-11-22T10:00:00+00:00"
    lake.runs.put(
        PublishedRun(
            name="first",
            run_id="1",
            state="done",
            started_at=moment,
            updated_at=moment,
            steps=1,
            dataset="d",
            teacher="t",
        )
    )
    key = publish.publish_evaluation(lake, "first", report, clips)
    evaluation = lake.runs.evaluation("first", key)
    assert [model.reference for model in evaluation.models] == ["teacher", "student"]
    assert evaluation.models[1].rates["MER"].value == 7 / 26
    edits = [line.edits[-1] for line in evaluation.lines]
    assert edits == sorted(edits, reverse=True)
    assert [line.has_clip for line in evaluation.lines] == [True, True, False, False, False, False]
    clip = lake.runs.clip("first", key, 0)
    number = TRUTH.index(evaluation.lines[0].reference)
    assert len(decode_flac(clip)) == StubModel._length(number)
    publish.publish_evaluation(lake, "first", run(clips, "teacher", "student", limit=1), clips)  # replaces it
    assert [line.has_clip for line in lake.runs.evaluation("first", key).lines] == [True]
    with pytest.raises(NotFound):
        lake.runs.clip("first", key, 1)
