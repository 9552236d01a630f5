"""Slices of a dataset: the same bytes whoever writes them, in any order, and after a kill at any point."""

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from lakes import batch, copy, put_recording
from pydantic import BaseModel

from k2d.corpus import index
from k2d.datasets.freeze import freeze, plan_freeze
from k2d.datasets.read import FrozenDataset
from k2d.datasets.slices import FreezePlan, SliceWriter, finish, read_plan
from k2d.errors import Conflict, StoreError
from k2d.filtering.policy import PAPER
from k2d.schema import Versions
from k2d.store import Lake, batches
from k2d.store.datasets import Datasets
from k2d.store.files import PendingFile

BATCH = "b_0123456789abcdef"
RECORDINGS = 9
REQUEST = {"batches": ["lectures"], "policy": PAPER, "shard_bytes": 4000}  # slices of 1 s
FROZEN = "datasets/talks"


@pytest.fixture(autouse=True)
def parts_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (batches, index):
        monkeypatch.setattr(module, "PART_RECORDINGS", 4)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Nine recordings in three parts, of which some chunks are rejected; one has the audio of another."""
    lake = Lake(str(tmp_path_factory.mktemp("written") / "lake"))
    lake.batches.put(batch(RECORDINGS))
    with pytest.MonkeyPatch.context() as patch:
        for module in (batches, index):
            patch.setattr(module, "PART_RECORDINGS", 4)
        for number in range(RECORDINGS):
            spans = [(round(i * 0.5, 2), round(i * 0.5 + 0.4, 2)) for i in range(4)]
            result = put_recording(lake, number if number != 6 else 1, spans, rejected=frozenset({number % 4}))
            lake.batches.put_result(BATCH, replace(result, position=number, versions=Versions(2, 4, "0.3.0", "0.3.0")))
    return lake


@pytest.fixture
def lake(written: Lake, tmp_path: Path) -> Lake:
    return copy(written, tmp_path / "lake")


def plan(lake: Lake) -> FreezePlan:
    planned = plan_freeze(lake, name="talks", **REQUEST)
    assert isinstance(planned, FreezePlan)
    return planned


def content(lake: Lake) -> dict[str, bytes]:
    files = {path: lake.files.read(path) for path in lake.files.listing(FROZEN)}
    manifest = lake.datasets.manifest("talks").model_copy(update={"created_at": ""})
    return files | {f"{FROZEN}/manifest.json": manifest.model_dump_json().encode()}


@pytest.fixture
def expected(lake: Lake, tmp_path: Path) -> dict[str, bytes]:
    """The dataset as one thread writes it."""
    own = copy(lake, tmp_path / "own")
    freeze(own, name="talks", threads=1, **REQUEST)
    return content(own)


def test_a_slice_is_a_run_of_recordings_of_one_part(lake: Lake) -> None:
    planned = plan(lake)
    assert [part.number for part in planned.parts] == [0, 1, 2]
    assert [part.skip for part in planned.parts] == [[], [6], []]
    for part in planned.parts:
        bounds = [0, *(end for _, end in part.slices)]
        assert part.slices == list(itertools.pairwise(bounds))
    assert sum(1 for _ in planned.slices()) > 3
    assert planned.selected == 8
    assert read_plan(lake, "talks", planned.digest) == planned


@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_and_any_number_of_workers_give_the_same_bytes(
    lake: Lake, expected: dict[str, bytes], seed: int
) -> None:
    planned = plan(lake)
    slices = list(planned.slices()) * 2  # each is asked for twice
    random.Random(seed).shuffle(slices)

    def work(own: list) -> None:
        worker = Lake(lake.files.root)
        writer = SliceWriter(worker, read_plan(worker, "talks", planned.digest))
        for slice_ in own:
            writer.write(slice_)
        finish(worker, "talks", planned.digest)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, [slices[number::3] for number in range(3)]))
    assert content(lake) == expected
    rows = [row for shard in FrozenDataset(lake, "talks").manifest.shards for row in _rows(lake, shard.number)]
    assert len({row.id for row in rows}) == len(rows) == lake.datasets.manifest("talks").counts.rows
    order = [int(row.recording_id[-2:], 16) for row in rows]
    assert order == sorted(order)


def _rows(lake: Lake, shard: int) -> list:
    return list(FrozenDataset(lake, "talks").rows(shard))


class Killed(BaseException):
    """Stands for SIGKILL: nothing behind it runs but `finally`."""


def test_a_kill_at_any_write_costs_at_most_one_slice(
    lake: Lake, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [path for path in expected if path.endswith(".parquet")]
    records = len(list(plan(lake).slices()))
    for kill_at in range(1, len(shards) + records + 2, 4):
        own = copy(lake, tmp_path / f"killed-{kill_at}")
        with monkeypatch.context() as patch:
            killed_at(patch, kill_at)
            with pytest.raises(Killed):
                freeze(own, name="talks", threads=1, **REQUEST)
        before = plan(own).missing(own)
        with monkeypatch.context() as patch:
            written = recorded(patch)
            freeze(own, name="talks", threads=1, **REQUEST)
        assert content(own) == expected, kill_at
        assert [key for key in written if key != "plan"] == [slice_.key for slice_ in before]


def recorded(patch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the records that are stored from now on."""
    keys: list[str] = []
    put = Datasets.put_record

    def noted(self: Datasets, name: str, digest: str, key: str, record: BaseModel) -> None:
        keys.append(key)
        put(self, name, digest, key, record)

    patch.setattr(Datasets, "put_record", noted)
    return keys


def killed_at(patch: pytest.MonkeyPatch, write: int) -> None:
    """Die when the process commits its n-th file of a dataset."""
    commit, count = PendingFile.commit, 0

    def counted(self: PendingFile, path: str, **options: bool) -> bool:
        nonlocal count
        count += "/plan.json" not in path and path.startswith("datasets/")
        if count == write:
            raise Killed
        return commit(self, path, **options)

    patch.setattr(PendingFile, "commit", counted)


def test_a_full_disk_in_the_middle_leaves_what_is_written(lake: Lake, expected: dict[str, bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        put = Datasets.put_shard

        def full(self: Datasets, name: str, digest: str, file: str, fill: Callable) -> tuple[int, str]:
            if file.startswith("00001-000"):
                raise StoreError("the store is full", hint="free space")
            return put(self, name, digest, file, fill)

        patch.setattr(Datasets, "put_shard", full)
        with pytest.raises(StoreError, match="full"):
            freeze(lake, name="talks", threads=1, **REQUEST)
    assert lake.datasets.names() == []
    missing = plan(lake).missing(lake)
    assert 0 < len(missing) < len(list(plan(lake).slices()))
    freeze(lake, name="talks", **REQUEST)
    assert content(lake) == expected


def test_a_shard_that_is_lost_before_the_manifest_is_written_again(lake: Lake, expected: dict[str, bytes]) -> None:
    planned = plan(lake)
    writer = SliceWriter(lake, planned)
    for slice_ in planned.slices():
        writer.write(slice_)
    lake.files.remove(next(path for path in lake.files.listing(FROZEN) if path.endswith(".parquet")))
    freeze(lake, name="talks", **REQUEST)
    assert content(lake) == expected


def test_of_two_freezes_of_one_name_one_wins(lake: Lake) -> None:
    first = plan(lake)
    other = plan_freeze(lake, name="talks", batches=["lectures"], policy=PAPER.varied(alpha=1.0))
    assert isinstance(other, FreezePlan)
    for planned in (first, other):
        writer = SliceWriter(lake, planned)
        for slice_ in planned.slices():
            writer.write(slice_)
    manifest = finish(lake, "talks", first.digest)
    with pytest.raises(Conflict, match="talks"):
        finish(lake, "talks", other.digest)
    assert lake.datasets.manifest("talks") == manifest == finish(lake, "talks", first.digest)
    assert lake.files.folders(FROZEN) == [first.digest]
    assert {path.rpartition(".")[2] for path in lake.files.listing(FROZEN)} == {"parquet", "json"}


def test_the_manifest_waits_for_the_last_slice(lake: Lake) -> None:
    planned = plan(lake)
    *most, last = planned.slices()
    writer = SliceWriter(lake, planned)
    for slice_ in most:
        writer.write(slice_)
    assert finish(lake, "talks", planned.digest) is None
    writer.write(last)
    assert finish(lake, "talks", planned.digest) is not None


def test_labels_are_opened_once_a_recording(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    parquet = type(lake.files).parquet
    monkeypatch.setattr(
        type(lake.files),
        "parquet",
        lambda self, path: opened.append(path) or parquet(self, path),  # type: ignore[func-returns-value]
    )
    freeze(lake, name="talks", **REQUEST)
    labels = [path for path in opened if path.startswith("labels/")]
    assert len(labels) == 8 + 1  # each once, and one for the teacher's description
