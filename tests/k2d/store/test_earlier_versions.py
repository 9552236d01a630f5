"""Stores that version 0.1 wrote: today's code says of them what 0.1 said, and computes anew what it cannot read."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from places import UNPACKED
from weights import BASE, base, cache

from k2d.client import Embedded
from k2d.corpus.audit import audit
from k2d.corpus.calibration.calibrate import calibrate
from k2d.corpus.calibration.review import review
from k2d.datasets.plan import make_plan, selections
from k2d.datasets.read import FrozenDataset
from k2d.datasets.revoked import revoked
from k2d.documents import NoLabelSeconds
from k2d.errors import BadRequest, Conflict, NotFound
from k2d.filtering.policy import DEFAULT, PRESETS
from k2d.keys import chunk_id
from k2d.schema import BatchState, Metric, Reason, Status
from k2d.settings import Settings

STORES = Path(__file__).parent / "stores" / "0.1"
EXPECTED: dict[str, dict[str, dict[str, Any]]] = json.loads((STORES / "expected.json").read_text("utf-8"))
ARCHIVES = {"sample": "sample", "small": "small", "rescued": "small", "older": "small"}
CASES = [(batch, preset) for batch, presets in EXPECTED.items() for preset in presets]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores, unpacked; nobody writes to them but for the index."""
    folder = tmp_path_factory.mktemp("stores")
    for archive in sorted(set(ARCHIVES.values())):
        unpack(archive, folder)
    return folder


def unpack(archive: str, folder: Path) -> None:
    with tarfile.open(STORES / f"{archive}.tar.xz") as tar:
        tar.extractall(folder, **UNPACKED)


def opened(stores: Path, batch: str) -> Embedded:
    store = "older" if batch == "older" else ARCHIVES[batch]
    return Embedded(Settings(store=str(stores / store), teacher=BASE, cache=cache(), _env_file=None))


def today(reason: str) -> str:
    return {"unheard": "unconfirmed"}.get(reason, reason)


@pytest.mark.parametrize(("batch", "preset"), CASES)
def test_ledgers_are_what_they_were(stores: Path, batch: str, preset: str) -> None:
    expected = EXPECTED[batch][preset]
    for _ in range(2):  # first from facts, then from the index that this version makes of them
        status = opened(stores, batch).status(batch, PRESETS[preset])
        assert (status.state, status.ledger.recordings.pending) == (expected["state"], 0)
        ledger = status.ledger.as_json()
        ledger["recordings"] = {name: ledger["recordings"][name] for name in expected["ledger"]["recordings"]}
        no_label = ledger.pop("no_label")  # not measured then
        assert no_label == NoLabelSeconds(unknown=expected["ledger"]["seconds"]["silence"]).as_json()
        assert {name: ledger[name] for name in expected["ledger"]} == expected["ledger"]
        assert [[row.recording, row.reason] for row in status.quarantined] == expected["quarantined"]


@pytest.mark.parametrize(("batch", "preset"), CASES)
def test_curves_and_reasons_are_what_they_were(stores: Path, batch: str, preset: str) -> None:
    preview = opened(stores, batch).preview([batch], PRESETS[preset], metrics=tuple(Metric))
    curve = {m: [[p.chunks, p.seconds, p.salvaged] for p in points] for m, points in preview.curve.items()}
    assert curve == EXPECTED[batch][preset]["curve"]
    expected = {today(reason): counts for reason, counts in EXPECTED[batch][preset]["reasons"].items()}
    assert {reason: [counts.chunks, counts.seconds] for reason, counts in preview.reasons.items()} == expected


@pytest.mark.parametrize(("batch", "preset"), CASES)
def test_verdicts_and_distances_of_chunks_are_what_they_were(stores: Path, batch: str, preset: str) -> None:
    embedded, policy = opened(stores, batch), PRESETS[preset]
    rows = list(embedded.chunks(batch, policy))
    expected = EXPECTED[batch][preset]["chunks"]
    assert [[row.id, row.verdict, row.reason, row.salvaged_s] for row in rows] == [
        [chunk, verdict, today(reason), salvaged_s] for chunk, verdict, reason, salvaged_s, _ in expected
    ]
    assert [row.distances for row in rows] == [distances for *_, distances in expected]
    for row in rows:
        detail = embedded.chunk(row.id, policy)
        assert (detail.verdict, detail.reason, detail.distances) == (row.verdict, row.reason, row.distances)
        assert all(hypothesis.validator and hypothesis.perturbation for hypothesis in detail.hypotheses)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("batch", ["sample", "small"])
def test_a_freeze_would_select_what_it_did(stores: Path, batch: str, preset: str) -> None:
    lake, expected = opened(stores, batch).lake, EXPECTED[batch][preset]
    batches, policy, nothing = [lake.batches.get(batch)], PRESETS[preset], revoked([])
    selected = [
        chunk_id(selection.facts_key, index)
        for selection in selections(lake, batches, policy, without=nothing)
        for index in selection.chunks.tolist()
    ]
    assert selected == [chunk for chunk, verdict, *_ in expected["chunks"] if verdict == Status.ACCEPTED]
    sums = make_plan(lake, batches, policy, without=nothing, head={}).sums
    seconds = expected["dataset"]["seconds"]
    assert sums.input_ms == round(1000 * seconds["input"])
    assert sums.silence_ms == round(1000 * seconds["silence"])
    assert {name: ms / 1000 for name, ms in sums.reason_ms.items()} == seconds["by_reason"]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_dataset_is_frozen_to_the_byte(tmp_path: Path, preset: str) -> None:
    unpack("small", tmp_path)
    embedded, expected = opened(tmp_path, "small"), EXPECTED["small"][preset]["dataset"]
    manifest = embedded.freeze("again", ["small"], PRESETS[preset])
    assert manifest.counts.model_dump() == expected["counts"]
    assert manifest.seconds.model_dump() == expected["seconds"]
    with embedded.lake.datasets.shard("small-v1", 0) as before, embedded.lake.datasets.shard("again", 0) as after:
        same_writer = before.metadata.created_by == after.metadata.created_by  # pyarrow signs its files
        if preset == "evidence":
            assert before.read().equals(after.read())
    shards = [[s.rows, s.bytes, s.sha256, s.seconds] for s in manifest.shards]
    if same_writer:
        assert shards == expected["shards"]
    assert [(rows, seconds) for rows, _, _, seconds in shards] == [(s[0], s[3]) for s in expected["shards"]]


def test_its_datasets_are_read(stores: Path) -> None:
    embedded = opened(stores, "small")
    (row,) = embedded.datasets()
    expected = EXPECTED["small"]["evidence"]["dataset"]
    assert (row.name, row.rows) == ("small-v1", expected["counts"]["rows"])
    frozen = FrozenDataset(embedded.lake, "small-v1")
    frozen.check()
    kept = [chunk for chunk, verdict, *_ in EXPECTED["small"]["evidence"]["chunks"] if verdict == Status.ACCEPTED]
    assert [chunk for row in frozen.rows(0) for chunk in row.fields["chunk_ids"]] == kept


def test_reviews_and_audits_are_made_of_them(stores: Path) -> None:
    lake = opened(stores, "sample").lake
    batches = [lake.batches.get("sample")]
    head, rows = review(lake, batches, DEFAULT, count=40, seed=0)
    assert head.population["recordings"] == 13
    assert all(row.hypotheses for row in rows)
    assert calibrate(lake, head, rows, batches, target=0.1, confidence=0.95).draws == 0
    assert audit(lake, batches, DEFAULT).seconds > 0


# ---- facts that an earlier state of the code wrote ----------------------------------------------------------------


def test_facts_that_lack_a_column_count_as_pending_and_resume_is_named(stores: Path) -> None:
    embedded = opened(stores, "older")
    status = embedded.status("older")
    assert (status.state, status.ledger.recordings.pending) == (BatchState.STALLED, 2)
    assert status.ledger.seconds.input == 0
    assert list(embedded.chunks("older")) == []
    assert embedded.preview(["older"]).chunks.model_dump() == {"accepted": 0, "salvaged": 0, "rejected": 0}
    with pytest.raises(Conflict, match="'older' has 2 recordings with facts of an earlier version") as refused:
        embedded.freeze("talks", ["older"])
    assert "k2d resume" in (refused.value.hint or "")
    batches = [embedded.lake.batches.get("older")]
    with pytest.raises(BadRequest, match="nothing to review"):
        review(embedded.lake, batches, DEFAULT, count=40, seed=0)
    assert audit(embedded.lake, batches, DEFAULT).seconds == 0
    lake = opened(stores, "sample").lake
    head, rows = review(lake, [lake.batches.get("sample")], DEFAULT, count=40, seed=0)
    with pytest.raises(NotFound, match="in none of these batches"):
        calibrate(embedded.lake, head, rows, batches, target=0.1, confidence=0.95)


@pytest.mark.integration
def test_resume_makes_those_facts_anew_without_labeling_again(tmp_path: Path) -> None:
    base()
    unpack("small", tmp_path)
    embedded = opened(tmp_path, "older")
    batch = embedded.lake.batches.get("older")
    labels = {path: path.stat().st_mtime_ns for path in (tmp_path / "older" / "labels").rglob("*.parquet")}
    assert len(labels) == 2
    assert embedded.resume() == {batch.id: 2}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "older" / "labels").rglob("*.parquet")} == labels
    status = embedded.status("older")
    assert (status.state, status.ledger.recordings.labeled) == (BatchState.DONE, 2)
    # the same recordings, labeled by the same weights, were accounted for like this by that version's own policy
    seconds = status.ledger.seconds
    assert (seconds.input, seconds.silence) == (11.142, 0.382)
    assert status.ledger.no_label == NoLabelSeconds(unknown=0.382)  # nobody measured it when they were labeled
    assert seconds.accepted + seconds.salvaged + seconds.rejected == pytest.approx(10.76)
    reasons = {chunk.reason for chunk in embedded.chunks("older")}
    assert Reason.TEACHER_REPETITION in reasons
    assert embedded.freeze("talks", ["older"], PRESETS["paper"]).counts.labeled == 2
    assert embedded.resume() == {}
