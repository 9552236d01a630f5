"""Facts that this version cannot read: counted as pending or named, with `k2d resume` as the way out; no traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import finished_batch
from lakes import copy, drop_column
from weights import BASE, base, cache

from k2d.client import Embedded
from k2d.corpus.agreement import gather
from k2d.corpus.audit import audit
from k2d.corpus.calibration.calibrate import calibrate
from k2d.corpus.calibration.review import review
from k2d.documents import BatchOptions
from k2d.errors import BadRequest, Conflict, K2DError, NotFound, StoreError
from k2d.filtering.policy import DEFAULT
from k2d.schema import BatchState
from k2d.settings import Settings
from k2d.store import Lake


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A finished batch of two labeled recordings and a quarantined one."""
    lake = Lake(str(tmp_path_factory.mktemp("finished") / "lake"))
    finished_batch(lake)
    return lake


@pytest.fixture
def embedded(finished: Lake, tmp_path: Path) -> Embedded:
    return Embedded(Settings(store=copy(finished, tmp_path / "lake").files.root, _env_file=None))


def break_facts(embedded: Embedded, *positions: int) -> None:
    batch = embedded.lake.batches.get("lectures")
    for position in positions:
        drop_column(embedded.lake, str(embedded.lake.batches.result(batch.id, position).facts_key))


def asks(embedded: Embedded) -> dict[str, Callable[[], object]]:
    """Every question about a batch."""
    lake, batch = embedded.lake, embedded.lake.batches.get("lectures")
    chunks = [f"{lake.batches.result(batch.id, position).facts_key}-00000" for position in (0, 1)]
    return {
        "status": lambda: embedded.status("lectures"),
        "chunks": lambda: list(embedded.chunks("lectures")),
        "curve": lambda: embedded.preview(["lectures"]),
        "chunk": lambda: [embedded.chunk(chunk) for chunk in chunks],
        "freeze": lambda: embedded.freeze("talks", ["lectures"]),
        "review": lambda: review(lake, [batch], DEFAULT, count=40, seed=0),
        "audit": lambda: audit(lake, [batch], DEFAULT),
        "validators": lambda: gather(lake, ["lectures"], most=100),
    }


@pytest.mark.parametrize("ask", ["status", "chunks", "curve", "chunk", "freeze", "review", "audit", "validators"])
@pytest.mark.parametrize("broken", [(0,), (0, 1)], ids=["one", "all"])
@pytest.mark.parametrize("marked", [False, True], ids=["unsure", "marked"])
def test_no_question_ends_in_a_traceback(embedded: Embedded, ask: str, broken: tuple[int, ...], marked: bool) -> None:
    """`marked`: the store says that it has no such facts; then nothing may silently count less."""
    if marked:
        embedded.lake.mark_current()
    break_facts(embedded, *broken)
    error = refusal(asks(embedded)[ask])
    if error is None:
        assert not marked or ask in ("status", "chunks")
        assert not marked or len(embedded.status("lectures").damaged) == len(broken)
        assert ask in ("status", "chunks", "curve", "review", "audit")
    else:
        assert "resume" in (error.hint or "") or "nothing to review" in error.message


def refusal(ask: Callable[[], object]) -> K2DError | None:
    """The error that answers a question, if one does; anything but an error made for people fails the test."""
    try:
        ask()
    except K2DError as error:
        return error
    return None


def test_they_count_as_pending(embedded: Embedded, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "lake", tmp_path / "whole")
    whole = Embedded(Settings(store=str(tmp_path / "whole"), _env_file=None)).status("lectures")
    break_facts(embedded, 1)
    status = embedded.status("lectures")
    assert status.state is BatchState.STALLED
    recordings = status.ledger.recordings
    assert (recordings.total, recordings.labeled, recordings.quarantined, recordings.pending) == (3, 1, 1, 1)
    ms = {name: round(1000 * value) for name, value in status.ledger.seconds}
    assert ms.pop("input") == sum(ms.values()) == 25_000
    assert status.ledger.seconds.accepted == whole.ledger.seconds.accepted / 2
    assert {chunk.recording for chunk in embedded.chunks("lectures")} == {"talk-0.wav"}
    chunks = embedded.preview(["lectures"]).chunks
    assert chunks.accepted + chunks.salvaged + chunks.rejected == 4


@pytest.mark.parametrize("marked", [False, True], ids=["unsure", "marked"])
def test_what_the_index_holds_goes_on_counting(embedded: Embedded, marked: bool) -> None:
    """Once every recording of a part is in the index, its facts are read for single chunks alone."""
    if marked:
        embedded.lake.mark_current()
    whole, chunks = embedded.status("lectures"), list(embedded.chunks("lectures"))
    break_facts(embedded, 1)
    assert embedded.status("lectures") == whole
    assert list(embedded.chunks("lectures")) == chunks
    with pytest.raises(NotFound, match="earlier version") as caught:
        embedded.chunk(chunks[-1].id)
    assert "k2d resume" in (caught.value.hint or "")


def test_a_freeze_is_refused_and_says_what_to_do(embedded: Embedded) -> None:
    break_facts(embedded, 0, 1)
    with pytest.raises(Conflict, match=r"'lectures' has 2 recordings with facts of an earlier version") as caught:
        embedded.freeze("talks", ["lectures"])
    assert "k2d resume" in (caught.value.hint or "")
    assert embedded.datasets() == []


def test_a_review_draws_from_what_can_be_read(embedded: Embedded) -> None:
    break_facts(embedded, 1)
    batch = embedded.lake.batches.get("lectures")
    head, rows = review(embedded.lake, [batch], DEFAULT, count=40, seed=0)
    assert (head.population["recordings"], {row.recording for row in rows}) == (1, {"talk-0.wav"})
    break_facts(embedded, 0)
    with pytest.raises(BadRequest, match="nothing to review"):
        review(embedded.lake, [batch], DEFAULT, count=40, seed=0)
    with pytest.raises(NotFound):
        calibrate(embedded.lake, head, rows, [batch], target=0.1, confidence=0.95)


def test_a_store_that_says_it_has_none_is_not_believed_about_what_is_read(embedded: Embedded) -> None:
    embedded.lake.mark_current()
    break_facts(embedded, 1)
    [damage] = embedded.status("lectures").damaged
    assert "talk-1.wav" in damage
    assert "k2d resume" in damage
    assert {chunk.recording for chunk in embedded.chunks("lectures")} == {"talk-0.wav"}
    for ask in ("curve", "review", "audit"):
        with pytest.raises(StoreError, match=r"talk-1\.wav.*earlier version") as caught:
            asks(embedded)[ask]()
        assert "k2d resume" in (caught.value.hint or "")


# ---- resume -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Settings:
    """A clip, labeled by real weights."""
    base()
    settings = Settings(
        store=str(tmp_path_factory.mktemp("lake")), teacher=BASE, cache=cache(), allow_downloads=False, _env_file=None
    )
    status = Embedded(settings).label([str(examples / "cs-clean-3.mp3")], BatchOptions(name="clip"))
    assert status.ledger.recordings.labeled == 1
    return settings


@pytest.mark.integration
@pytest.mark.parametrize("marked", [False, True], ids=["unsure", "marked"])
@pytest.mark.parametrize("what", ["a column", "the shard"])
def test_resume_makes_them_anew_from_labels_and_hypotheses(
    labeled: Settings, tmp_path: Path, what: str, marked: bool
) -> None:
    shutil.copytree(labeled.store, tmp_path / "lake")
    embedded = Embedded(labeled.model_copy(update={"store": str(tmp_path / "lake")}))
    lake, batch = embedded.lake, embedded.lake.batches.get("clip")
    status, chunks = embedded.status("clip"), list(embedded.chunks("clip"))
    (result,) = lake.batches.results(batch.id)
    facts = lake.facts.read(str(result.facts_key))
    if not marked:
        lake.files.remove("store.json")
        embedded = Embedded(embedded.settings)
    if what == "a column":
        drop_column(lake, str(result.facts_key))
    else:
        lake.files.remove(f"facts/{result.facts_key[:2]}/{result.facts_key}.parquet")
    lake.files.remove_folder(f"batches/{batch.id}/index")  # otherwise it still answers
    stamps = {path: path.stat().st_mtime_ns for room in ("labels", "hypotheses") for path in files(tmp_path, room)}
    assert stamps

    assert embedded.resume() == {batch.id: 1}
    assert lake.facts.read(str(result.facts_key)) == facts
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps  # nothing was transcribed again
    again = embedded.status("clip")
    assert again.state is BatchState.DONE
    assert again.ledger.seconds == status.ledger.seconds
    assert list(embedded.chunks("clip")) == chunks
    assert embedded.resume() == {}
    assert embedded.lake.is_current()


def files(root: Path, room: str) -> list[Path]:
    return sorted((root / "lake" / room).rglob("*.parquet"))
