"""The stream a student is trained from: the same from any step and for any number of processes, whatever is broken."""

import gc
import itertools
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from buckets import OPTIONS, new_bucket
from frozen_sets import BATCH, NAME, change, frozen
from lakes import batch, put_recording, unflac
from row_processes import row_processes
from structlog.testing import capture_logs

from k2d.datasets.freeze import freeze
from k2d.datasets.read import FrozenDataset
from k2d.errors import BadRequest, StoreError
from k2d.filtering.policy import DEFAULT
from k2d.store import Lake
from k2d.whisper.features import log_mel
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import IGNORED, MicroBatch
from trainer.data.order import Order
from trainer.data.prefetch import BlockRows
from trainer.data.stream import TrainingData
from trainer.errors import NoTrainingData
from trainer.options import Recipe

ROWS = 40  # of `dataset`, in 10 row groups
SMALL: dict[str, Any] = {"batch": 8, "micro_batch": 4, "lanes": 2, "shuffle_groups": 2}
BARE: dict[str, Any] = {**SMALL, "timestamp_probability": 0.0, "prompt_probability": 0.0}
VARIED: dict[str, Any] = {**SMALL, "micro_batch": 2, "spec_augment": True, "noise_snr_db": 5.0, "distance_weight": 0.5}


@pytest.fixture
def lake(dataset: FrozenDataset, tmp_path: Path) -> Lake:
    """The same, to be damaged."""
    shutil.copytree(dataset._lake.files.root, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


def open_data(
    dataset: FrozenDataset, vocabulary: Vocabulary, *, rank: int = 0, world: int = 1, **recipe: Any
) -> TrainingData:
    return TrainingData(dataset, Recipe(**recipe), vocabulary=vocabulary, mels=80, rank=rank, world=world)


def steps(
    data: TrainingData, count: int, *, start: int = 0, features: bool | set[str] = True
) -> list[list[MicroBatch]]:
    """With the features of all rows, of none or of some."""
    some = features if isinstance(features, set) else set()
    with data:
        return list(
            itertools.islice(data.steps(start, needs_features=None if features is True else some.__contains__), count)
        )


def content(step: list[MicroBatch]) -> list[tuple[Any, ...]]:
    """All bits of a step."""
    return [
        (
            *(one.ids, one.inputs.tobytes(), one.targets.tobytes(), one.weights.tobytes(), one.seconds),
            *(None if cells is None else cells.tobytes() for cells in one.features),
        )
        for one in step
    ]


def rows_in(step: list[MicroBatch]) -> dict[str, tuple[Any, ...]]:
    """All bits of a step's rows without padding, by row: how they are cut into micro-batches is left out."""
    found = {}
    for one in step:
        for row, features, inputs, targets, weight in zip(
            one.ids, one.features, one.inputs, one.targets, one.weights, strict=True
        ):
            length = np.flatnonzero(targets != IGNORED)[-1] + 1
            found[row] = (features.tobytes(), inputs[:length].tolist(), targets[:length].tolist(), weight)
    return found


def ids(found: list[list[MicroBatch]]) -> list[str]:
    return [row for step in found for one in step for row in one.ids]


def stored(dataset: FrozenDataset) -> dict[str, Any]:
    return {row.id: row for shard in dataset.manifest.shards for row in dataset.rows(shard.number)}


@pytest.fixture(scope="module")
def whole(dataset: FrozenDataset, vocabulary: Vocabulary) -> list[list[MicroBatch]]:
    """Seven steps of `dataset` by the recipe VARIED, in one process."""
    return steps(open_data(dataset, vocabulary, **VARIED), 7)


def threads() -> list[str]:
    """Those of training data that are alive."""
    return [one.name for one in threading.enumerate() if one.name.startswith(("reader", "prepare"))]


def rows_of(dataset: FrozenDataset) -> list[str]:
    return [row["id"] for group in dataset.groups() for row in dataset.read(group, ["id"])]


def test_rows_come_as_the_order_says(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    found = steps(open_data(dataset, vocabulary, **SMALL), 12, features=False)
    groups = dataset.groups()
    order = Order([group.rows for group in groups], seed=0, batch=8, lanes=2, shuffle_groups=2)
    names = [[row["id"] for row in dataset.read(group, ["id"])] for group in groups]
    for number, step in enumerate(found):
        places = [order.place(number, position) for position in range(8)]
        assert sorted(ids([step])) == sorted(names[place.group][place.row] for place in places)
    assert set(ids(found)) == set(stored(dataset))
    assert order.lanes == 2


def test_a_row_is_its_audio_and_its_label(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    rows = stored(dataset)
    for one in steps(open_data(dataset, vocabulary, **BARE), 1)[0]:
        assert (
            one.inputs.shape == one.targets.shape == (4, max((one.targets[n] != IGNORED).sum() for n in range(4)) + 3)
        )
        for row, features, inputs, targets in zip(one.ids, one.features, one.inputs, one.targets, strict=True):
            assert np.array_equal(features, log_mel(unflac(rows[row].flac), mels=80))
            learned = targets[targets != IGNORED].tolist()
            assert vocabulary.decode(learned[:-1]) == rows[row].text
            assert learned[-1] == vocabulary.eot
            begin = [vocabulary.sot, vocabulary.sot_lm, vocabulary.transcribe, vocabulary.no_timestamps]
            assert inputs[:4].tolist() == begin
            assert inputs[4 : 3 + len(learned)].tolist() == learned[:-1]
        assert one.seconds == pytest.approx(4 * 0.2)
        assert one.tokens == (one.targets != IGNORED).sum()


@pytest.mark.parametrize("start", [2, 5])
def test_going_on_equals_never_having_stopped(
    dataset: FrozenDataset, vocabulary: Vocabulary, whole: list[list[MicroBatch]], start: int
) -> None:
    rest = steps(open_data(dataset, vocabulary, **VARIED), 7 - start, start=start)
    assert [content(step) for step in rest] == [content(step) for step in whole[start:]]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_out_what_one_process_sees(
    dataset: FrozenDataset, vocabulary: Vocabulary, whole: list[list[MicroBatch]], world: int
) -> None:
    shares = [steps(open_data(dataset, vocabulary, rank=rank, world=world, **VARIED), 2) for rank in range(world)]
    for number in range(2):
        parts = [rows_in(share[number]) for share in shares]
        assert [len(part) for part in parts] == [8 // world] * world
        assert {row: bits for part in parts for row, bits in part.items()} == rows_in(whole[number])


def test_rows_of_like_length_share_a_micro_batch(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    for step in steps(open_data(dataset, vocabulary, **VARIED), 5, features=False):
        lengths = [(one.targets != IGNORED).shape[1] - (one.targets[:, ::-1] != IGNORED).argmax(1) for one in step]
        assert [len(part) for part in lengths] == [2, 2, 2, 2]
        flat = np.concatenate(lengths).tolist()
        assert flat == sorted(flat, reverse=True)


@pytest.mark.parametrize(
    ("kind", "workers", "start"), [("threads", 5, 0), ("processes", 1, 0), ("processes", 3, 0), ("processes", 2, 5)]
)
def test_threads_and_processes_change_nothing(
    dataset: FrozenDataset,
    vocabulary: Vocabulary,
    whole: list[list[MicroBatch]],
    kind: str,
    workers: int,
    start: int,
) -> None:
    many = steps(open_data(dataset, vocabulary, **VARIED, worker_kind=kind, workers=workers), 2, start=start)
    assert [content(step) for step in many] == [content(step) for step in whole[start : start + 2]]


@pytest.mark.parametrize(
    ("kind", "beside_gpu", "workers"),
    [
        ("auto", False, "3 threads"),
        ("auto", True, "3 processes"),
        ("threads", True, "3 threads"),
        ("processes", False, "3 processes"),
    ],
)
def test_what_prepares_rows(
    dataset: FrozenDataset, vocabulary: Vocabulary, kind: str, beside_gpu: bool, workers: str
) -> None:
    recipe = Recipe(**SMALL, worker_kind=kind, workers=3)
    with TrainingData(dataset, recipe, vocabulary=vocabulary, mels=80, beside_gpu=beside_gpu) as data:
        assert data.workers == workers
        next(data.steps(0))
        assert bool(row_processes()) == (workers == "3 processes")


def test_killed_processes_change_nothing(
    dataset: FrozenDataset, vocabulary: Vocabulary, whole: list[list[MicroBatch]]
) -> None:
    first: list[psutil.Process] = []
    with open_data(dataset, vocabulary, **VARIED, worker_kind="processes", workers=2) as data:
        for number, step in enumerate(itertools.islice(data.steps(0), 7)):
            assert content(step) == content(whole[number])
            first = first or row_processes()
            if number in (0, 3):
                first[number % 2].kill()  # whatever it is at
        assert len(first) == 2
        assert not set(first) & set(row_processes())


def test_seeds_change_everything(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    first, second = (steps(open_data(dataset, vocabulary, **SMALL, seed=seed), 2, features=False) for seed in (0, 1))
    assert ids(first) != ids(second)


def test_a_row_that_needs_no_features_is_not_decoded(lake: Lake, vocabulary: Vocabulary) -> None:
    for shard in range(len(lake.datasets.manifest(NAME).shards)):
        change(lake, shard, damage)
    data = open_data(FrozenDataset(lake, NAME), vocabulary, **BARE)
    for one in itertools.chain(*steps(data, 3, features=False)):
        assert one.features == (None,) * 4
        assert one.tokens > 0
    assert not data.skipped


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_features_of_some(dataset: FrozenDataset, vocabulary: Vocabulary, kind: str) -> None:
    some = set(rows_of(dataset)[::4])
    for one in itertools.chain(*steps(open_data(dataset, vocabulary, **BARE, worker_kind=kind), 5, features=some)):
        assert [features is not None for features in one.features] == [row in some for row in one.ids]


def damage(rows: list[dict[str, Any]]) -> None:
    """Cut every row's audio in the middle."""
    for row in rows:
        row["audio"]["bytes"] = row["audio"]["bytes"][: len(row["audio"]["bytes"]) // 2]


@pytest.mark.parametrize(
    ("audio", "kind"),
    [(b"", "threads"), (None, "threads"), (b"no audio", "threads"), ("half", "threads"), ("half", "processes")],
    ids=["empty", "none", "not audio", "cut off", "cut off, in processes"],
)
def test_a_corrupt_row_is_named_and_left_out(lake: Lake, vocabulary: Vocabulary, audio: Any, kind: str) -> None:
    group = FrozenDataset(lake, NAME).groups()[3]
    chosen = {row["id"] for row in FrozenDataset(lake, NAME).read(group, ["id"])}
    broken = sorted(chosen)[1]

    def edit(rows: list[dict[str, Any]]) -> None:
        half = rows[1]["audio"]["bytes"][: len(rows[1]["audio"]["bytes"]) // 2]
        rows[1]["audio"] = {"bytes": half if audio == "half" else audio, "path": "x.flac"}

    change(lake, 3, edit)
    data = open_data(FrozenDataset(lake, NAME), vocabulary, **BARE | {"lanes": 1}, worker_kind=kind)
    with capture_logs() as logs:
        found = steps(data, ROWS // 8, features=chosen)
    assert sorted(ids(found)) == sorted(set(rows_of(FrozenDataset(lake, NAME))) - {broken})
    assert data.skipped == {"damaged audio": 1}
    assert [(line["row"], line["shard"], line["why"]) for line in logs] == [(broken, 3, "damaged audio")]
    assert sorted({len(one.ids) for step in found for one in step}) == [3, 4]


def test_audio_of_another_length_than_its_label(lake: Lake, vocabulary: Vocabulary) -> None:
    def swap(rows: list[dict[str, Any]]) -> None:
        rows[0]["duration_s"] = 0.1

    change(lake, 0, swap)
    data = open_data(FrozenDataset(lake, NAME), vocabulary, **BARE | {"lanes": 1})
    steps(data, ROWS // 8, features={rows_of(FrozenDataset(lake, NAME))[0]})
    assert data.skipped == {"damaged audio": 1}


def large(tmp_path: Path, *, broken: int) -> FrozenDataset:
    """240 rows of which some say nothing."""
    lake = Lake(str(tmp_path / "large"))
    frozen(lake, recordings=4, rows=60, shard_bytes=10**9)

    def silence(rows: list[dict[str, Any]]) -> None:
        for row in rows[:: 240 // broken]:
            row["text"], row["segments"] = " ", []

    change(lake, 0, silence)
    return FrozenDataset(lake, NAME)


def test_too_many_broken_rows_end_training(tmp_path: Path, vocabulary: Vocabulary) -> None:
    data = open_data(large(tmp_path, broken=24), vocabulary, **BARE)
    with pytest.raises(NoTrainingData, match=r"of 2\d\d rows .* are broken \(no text: \d+\)") as caught:
        steps(data, 31, features=False)
    assert caught.value.hint
    assert data.skipped["no text"] >= 10


def test_a_few_broken_rows_do_not(tmp_path: Path, vocabulary: Vocabulary) -> None:
    data = open_data(large(tmp_path, broken=10), vocabulary, **BARE)
    assert len(ids(steps(data, 60, features=False))) == 480 - 20
    assert data.skipped == {"no text": 20}


def test_a_dataset_of_which_nothing_fits(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    data = open_data(dataset, vocabulary, **{**BARE, "max_tokens": 16, "prompt_probability": 1.0})
    with pytest.raises(NoTrainingData, match="more tokens than max_tokens: 80"):
        steps(data, 10_000)
    assert not threads()


def test_a_dataset_without_rows(lake: Lake, vocabulary: Vocabulary) -> None:
    path = Path(lake.files.full(f"datasets/{NAME}/manifest.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shards": []}))
    with pytest.raises(NoTrainingData, match="no rows") as caught:
        open_data(FrozenDataset(lake, NAME), vocabulary, **SMALL)
    assert caught.value.hint


def test_a_shard_that_is_gone_is_found_before_anything_starts(lake: Lake, vocabulary: Vocabulary) -> None:
    Path(lake.datasets.shard_path(NAME, 2)).unlink()
    with pytest.raises(StoreError, match="shard 2 of dataset 'talks' is gone") as caught:
        open_data(FrozenDataset(lake, NAME), vocabulary, **SMALL)
    assert caught.value.hint
    Path(lake.datasets.shard_path(NAME, 5)).unlink()
    with pytest.raises(StoreError, match="shard 2 and 1 more of"):
        open_data(FrozenDataset(lake, NAME), vocabulary, **SMALL)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "shard 4 of dataset 'talks' is gone"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "shard 4 of dataset 'talks': .* is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"2"), "shard 4 of dataset 'talks': .*sha256"),
        (lambda path: path.write_bytes(b"PAR1" * 1000), "shard 4 of dataset 'talks': .* is damaged"),
        (lambda path: path.write_bytes(b""), "shard 4 of dataset 'talks': .* is damaged"),
    ],
    ids=["gone", "truncated", "changed", "garbage", "empty"],
)
def test_a_shard_that_breaks_meanwhile(lake: Lake, vocabulary: Vocabulary, harm: Any, message: str) -> None:
    data = open_data(FrozenDataset(lake, NAME), vocabulary, **SMALL)
    harm(Path(lake.datasets.shard_path(NAME, 4)))
    with pytest.raises(StoreError, match=message) as caught:
        steps(data, 10, features=False)
    assert "pull" in str(caught.value.hint)
    assert not threads()


def test_a_shard_with_other_rows_than_the_manifest_says(lake: Lake, vocabulary: Vocabulary) -> None:
    change(lake, 4, lambda rows: rows.pop() and None)
    with pytest.raises(StoreError, match=r"shard 4 of dataset 'talks'.*differs from the manifest"):
        steps(open_data(FrozenDataset(lake, NAME), vocabulary, **SMALL), 10, features=False)


def test_a_language_the_model_does_not_know(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    with pytest.raises(BadRequest, match="unknown language: 'auto'"):
        open_data(dataset, vocabulary, **SMALL, language="auto")


def test_held_out_recordings_validate_and_do_not_train(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    recipe = {**BARE, "holdout": 0.4}
    data = open_data(dataset, vocabulary, **recipe)
    apart = data.held_out(1000)
    trained = set(ids(steps(data, 15, features=False)))
    rows = stored(dataset)
    assert trained | {row.id for row in apart} == set(rows)
    assert {rows[row].recording_id for row in trained}.isdisjoint(rows[row.id].recording_id for row in apart)
    assert not data.skipped
    assert all(np.array_equal(row.samples, unflac(rows[row.id].flac)) for row in apart)
    assert [(row.text, row.language, row.seconds) for row in apart] == [
        (rows[row.id].text, rows[row.id].language, rows[row.id].duration_s) for row in apart
    ]
    other = open_data(dataset, vocabulary, **recipe | {"seed": 5}, rank=1, world=2)
    assert [row.id for row in other.held_out(1000)] == [row.id for row in apart]


def test_a_few_held_out_rows_are_from_many_places(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    data = open_data(dataset, vocabulary, **BARE, holdout=0.999)
    few = [row.id for row in data.held_out(4)]
    assert len(few) == 4
    groups = [{row["id"] for row in dataset.read(group, ["id"])} for group in dataset.groups()]
    assert len({n for n, group in enumerate(groups) if group & set(few)}) == 4
    assert open_data(dataset, vocabulary, **BARE).held_out(4) == []


def test_everything_held_out(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    with pytest.raises(NoTrainingData, match="all are held out"):
        steps(open_data(dataset, vocabulary, **BARE, holdout=0.999), 10_000, features=False)


def test_threads_end_with_the_data(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    with open_data(dataset, vocabulary, **SMALL, workers=3) as data:
        running = data.steps(0)
        next(running)
        assert threads()
        del running  # whoever forgets the stream ends it
        gc.collect()
        assert not threads()
        running = data.steps(5)
        next(running)
    assert not threads()
    with pytest.raises(StopIteration):
        next(running)


def test_processes_end_with_the_data_and_start_again(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    data = open_data(dataset, vocabulary, **SMALL, worker_kind="processes", workers=2)
    for _ in range(2):
        with data:
            first = next(data.steps(0))
            assert [one.features[0] is not None for one in first] == [True, True]
            assert len(row_processes()) == 2  # of all streams together
        assert not row_processes()


def test_memory_holds_two_blocks_a_lane_at_most(tmp_path: Path, vocabulary: Vocabulary) -> None:
    dataset = frozen(tmp_path / "lake", recordings=8)
    with open_data(dataset, vocabulary, **{**SMALL, "shuffle_groups": 1}) as data:
        running = data.steps(0, needs_features=lambda _: False)
        most = 0
        for _ in range(10):
            for _ in range(5):
                next(running)
            most = max(most, sum(type(one) is BlockRows for one in gc.get_objects()))
    # two lanes of two blocks, and what the steps ahead still wait for: 3 × 8 rows of 4-row blocks
    assert most <= 2 * 2 + 6
    assert len(dataset.groups()) >= 20


def test_nothing_is_written(dataset: FrozenDataset, vocabulary: Vocabulary) -> None:
    root = Path(dataset._lake.files.root)

    def snapshot() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}

    before = snapshot()
    steps(open_data(dataset, vocabulary, **VARIED, holdout=0.2), 4)
    assert snapshot() == before


def test_an_object_store_gives_the_same(
    s3: str, dataset: FrozenDataset, vocabulary: Vocabulary, whole: list[list[MicroBatch]]
) -> None:
    remote = Lake(f"s3://{new_bucket(s3)}/lake", endpoint_url=s3, **OPTIONS)
    far = frozen(remote)
    assert far.manifest.digest == dataset.manifest.digest
    found = steps(open_data(far, vocabulary, **VARIED), 2)
    assert [content(step) for step in found] == [content(step) for step in whole[:2]]
    remote.files.fs.rm(remote.datasets.shard_path(NAME, 1))
    with pytest.raises(StoreError, match="shard 1 of dataset 'talks' is gone"):
        open_data(far, vocabulary, **VARIED)


def test_a_manifest_says_how_rows_are_grouped(tmp_path: Path, vocabulary: Vocabulary) -> None:
    """Row groups are taken from the manifest: this fails when `freeze` groups rows in another way."""
    lake = Lake(str(tmp_path / "lake"))
    lake.batches.put(batch(2))
    for number in range(2):
        spans = [(i * 3.0, i * 3.0 + 0.1) for i in range(70)]
        lake.batches.put_result(BATCH, put_recording(lake, number, spans))
    freeze(lake, name=NAME, batches=["lectures"], policy=DEFAULT)
    dataset = FrozenDataset(lake, NAME)
    assert [group.rows for group in dataset.groups()] == [64, 64, 12]
    with lake.datasets.shard(NAME, 0) as file:
        assert [file.metadata.row_group(n).num_rows for n in range(3)] == [64, 64, 12]
    assert len(set(ids(steps(open_data(dataset, vocabulary, **BARE), 18, features=False)))) == 140
