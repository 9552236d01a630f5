"""Pages over a store with one of everything: nothing is "1 recordings"."""

import re
from html import unescape

import pytest
from factories import TEACHER, TEXTS, finished_batch
from local_client import LocalClient

from k2d.corpus.calibration.desk import calibrate_draw, next_segments, store_review
from k2d.corpus.calibration.draws import make_draw, open_draw
from k2d.corpus.calibration.review import FEWEST
from k2d.datasets.freeze import freeze
from k2d.documents import ReviewRequest
from k2d.filtering.policy import DEFAULT
from k2d.keys import chunk_id
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.reviews import ReviewOrder
from k2d.store.runs import EvaluatedLine, EvaluatedModel, PublishedRun, Rate, RunEvaluation
from services.filter.app import create_app
from services.filter.console.words import Words

ONE_OF_MANY = re.compile(r"(?<![\w.,:/…–-])1 (?:[a-z]+ )?[a-z]+s\b(?<!\bis)(?<!\bhas)(?<!\bthis)(?<!\bsays)")
AT = "2026-11-22T10:00:00+00:00"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The texts of the pages by their addresses."""
    lake = Lake(str(tmp_path_factory.mktemp("one") / "lake"))
    batch = finished_batch(lake, name="one", recordings=1, texts=TEXTS[:1])
    (result,) = (own for own in lake.batches.results(batch.id) if own.facts_key)
    draw = make_draw(lake, [batch], DEFAULT, count=FEWEST, seed=1, order=ReviewOrder.RANDOM)
    (item,) = next_segments(lake, draw.id, reviewer="ada").segments
    for reviewer in ("ada", "ben"):
        request = ReviewRequest(id=f"{draw.id}-{reviewer}", segment=item.id, verdict="right", draw=draw.id, seconds=1.0)
        store_review(lake, request, reviewer=reviewer)
    calibration = calibrate_draw(lake, open_draw(lake, draw.id), target=0.1, confidence=0.9, name="mine", by="ada")
    freeze(lake, name="one", batches=[batch.id], policy=DEFAULT)
    lake.runs.put(PublishedRun(
        name="one", run_id="1", state="done", started_at=AT, updated_at=AT, steps=1, step=1, dataset="one",
        teacher=TEACHER.reference, loss=1.0, mer=0.1, best_mer=0.1, best_step=1,
    ))  # fmt: skip
    model = EvaluatedModel(
        reference="one", repetitions=1, real_time=1.0, parameters=1_000_000, rates={"MER": Rate(value=1.0)}
    )
    line = EvaluatedLine(
        name="one.flac", language="zh", seconds=1.0, has_clip=False, reference="好", hypotheses=["號"],
        edits=[1], tokens=[1],
    )  # fmt: skip
    evaluation = RunEvaluation(
        name="one", created_at=AT, language="zh", utterances=1, seconds=1.0, models=[model], lines=[line]
    )
    lake.runs.put_evaluation("one", "one", evaluation)
    explore = "batches/one/explore"
    addresses = [
        "", "?hours=true", "batches/new", "batches/new?add=one", "batches/one", "batches/one/delete",
        "batches/one/chunks", explore,
        *(f"{explore}/panel?show={part}&other=paper" for part in ("boundary", "yield", "flips")),
        f"chunks/{chunk_id(str(result.facts_key), 0)}", "review", "review?batch=one", f"review/{draw.id}",
        f"review/{draw.id}/progress", f"review/{draw.id}/calibrations/{calibration.id}", "datasets", "datasets/one",
        "runs", "runs/one", "fleet", "fleet/state", "keys", "audit-log",
    ]  # fmt: skip
    with LocalClient(create_app(Settings(store=str(lake.files.root), _env_file=None))) as client:
        answers = {address: client.get(f"/{address}") for address in addresses}
    assert {address: answer.status_code for address, answer in answers.items() if answer.status_code != 200} == {}
    return {address: text_of(answer.text) for address, answer in answers.items()}


def text_of(page: str) -> str:
    """What people read of a page, and are told by its labels for screen readers, with a bar between elements."""
    labels = re.sub(r'<[^>]*?aria-label="([^"]*)"[^>]*>', r" | \1 | ", page)
    inline = re.sub(r"</?(?:b|small|code|strong|span)\b[^>]*>", " ", labels)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " | ", inline)))


def test_nothing_is_one_of_many(pages: dict[str, str]) -> None:
    found = {address: [own[0] for own in ONE_OF_MANY.finditer(text)] for address, text in pages.items()}
    assert {address: texts for address, texts in found.items() if texts} == {}
    everything = " ".join(pages.values())
    for text in (
        "1 of 1 segment reviewed", "1 segment has a second review: 1 of 1 pair says the same", "1 utterance,",
        "1 edit of 1 token",
    ):  # fmt: skip
        assert text in everything


def test_many_are_found() -> None:
    for text in ("with 1 draws", "<b>1</b> small chunks", '<svg aria-label="1 of 1 segments">'):
        assert ONE_OF_MANY.search(text_of(text))
    for text in ("1 chunk", "21 chunks", "1 of these is", "<td>1</td><td>chunks</td>", "1.1 s"):
        assert not ONE_OF_MANY.search(text_of(text))


@pytest.mark.parametrize(("count", "text"), [("0", "0 files"), ("1", "1 file"), ("1,001", "1,001 files")])
def test_words_follow_their_number(count: str, text: str) -> None:
    assert Words("en")("{count} {count:file|files}", count=count) == text
