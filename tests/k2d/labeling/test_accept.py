"""Which batch a request is: the one of its name, a new one, or none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k2d import sources
from k2d.corpus import views
from k2d.documents import BatchOptions
from k2d.errors import Conflict
from k2d.filehash import FileHashes
from k2d.labeling.accept import accept
from k2d.schema import Source
from k2d.settings import Settings
from k2d.store import Lake

SETTINGS = Settings(_env_file=None)
OPTIONS = BatchOptions(name="talks")


@pytest.fixture
def files(tmp_path: Path) -> list[Source]:
    (tmp_path / "a.wav").write_bytes(b"a")
    return [sources.from_path(tmp_path / "a.wav", "a.wav", hashes=FileHashes(None))]


def test_the_same_files_under_other_names_are_the_same_batch(files: list[Source], tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    first = accept(files, OPTIONS, lake, SETTINGS)
    elsewhere = [replace(source, name=f"/srv/{source.name}") for source in files]  # as earlier versions named them
    assert accept(elsewhere, OPTIONS, lake, SETTINGS) == first
    assert accept(elsewhere, BatchOptions(), lake, SETTINGS).id != first.id  # no name says so


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (BatchOptions(name="talks", language="zh"), "language zh-en, not zh"),
        (BatchOptions(name="talks", vad=True), "vad False, not True"),
        (BatchOptions(name="talks", keep_partial=True), "keep_partial False, not True"),
        (OPTIONS, "it has other files"),
    ],
)
def test_a_taken_name_says_what_differs_and_that_labels_are_used_again(
    files: list[Source], tmp_path: Path, options: BatchOptions, difference: str
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    accept(files, OPTIONS, lake, SETTINGS)
    other = files if options != OPTIONS else [replace(files[0], key="other")]
    with pytest.raises(Conflict, match=difference) as refused:
        accept(other, options, lake, SETTINGS)
    assert "labels that are there are used" in (refused.value.hint or "")
    assert "--add" in (refused.value.hint or "")


def test_files_that_are_all_in_the_extended_batch_of_a_name_are_that_batch(files: list[Source], tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    for name in "bc":
        (tmp_path / f"{name}.wav").write_bytes(name.encode())
    b, c = (sources.from_path(tmp_path / f"{name}.wav", f"{name}.wav", hashes=FileHashes(None)) for name in "bc")
    first = accept(files, OPTIONS, lake, SETTINGS)
    grown = accept([b], OPTIONS, lake, SETTINGS, adds=True)
    for some in ([*files, b], files, [b], [b, replace(b, name="copy.wav", uri="file:///copy.wav")]):
        assert accept(some, OPTIONS, lake, SETTINGS).id == grown.id
    with pytest.raises(Conflict, match="it has other files") as refused:
        accept([*files, b, c], OPTIONS, lake, SETTINGS)
    assert "--add talks" in (refused.value.hint or "")
    with pytest.raises(Conflict, match="its files lay elsewhere"):
        accept([replace(b, uri="file:///moved.wav")], OPTIONS, lake, SETTINGS)
    # the older batch lost the name: it is not shown as the one that has it
    assert [(views.listed(lake, one).id, views.listed(lake, one).name) for one in (first, grown)] == [
        (first.id, first.id),
        (grown.id, "talks"),
    ]
    assert (views.status(lake, first).name, views.status(lake, first).ledger.name) == (first.id, first.id)


def test_what_is_added_to_a_second_name_leaves_the_first_as_it_is(files: list[Source], tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    (tmp_path / "b.wav").write_bytes(b"b")
    more = [*files, sources.from_path(tmp_path / "b.wav", "b.wav", hashes=FileHashes(None))]
    first = accept(files, BatchOptions(name="alpha"), lake, SETTINGS)
    assert accept(files, BatchOptions(name="beta"), lake, SETTINGS, adds=True).id == first.id
    grown = accept(more, BatchOptions(name="beta"), lake, SETTINGS, adds=True)
    assert (grown.name, len(grown.sources)) == ("beta", 2)
    assert lake.batches.get("beta").id == grown.id
    assert lake.batches.get("alpha").id == first.id
    assert accept(more, BatchOptions(name="alpha"), lake, SETTINGS, adds=True).id == grown.id
    assert lake.batches.get("alpha").id == grown.id


@pytest.mark.parametrize("options", [{"beam_size": 1}, {"terms": "Kafka"}, {"language": "zh"}, {"channels": "1"}])
def test_a_batch_keeps_its_options_when_something_is_added(
    files: list[Source], tmp_path: Path, options: dict[str, Any]
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    accept(files, OPTIONS, lake, SETTINGS)
    with pytest.raises(Conflict, match="batch 'talks' has"):
        accept(files, BatchOptions(name="talks", **options), lake, SETTINGS, adds=True)
    same = BatchOptions(name="talks", language=SETTINGS.language, beam_size=SETTINGS.beam_size)
    assert accept(files, same, lake, SETTINGS, adds=True).id == lake.batches.get("talks").id
