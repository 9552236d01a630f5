"""Exports: each is read back by the toolkit it is for, and gives the same text and the same samples."""

import errno
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import datasets
import lhotse
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import webdataset
import yaml
from lakes import copy, unflac
from places import UNPACKED

from k2d.datasets.formats import FORMATS, export, kaldi, shards
from k2d.datasets.freeze import freeze
from k2d.datasets.pull import export_pulled
from k2d.datasets.read import FrozenDataset
from k2d.datasets.stream import stream_export
from k2d.errors import BadRequest, Conflict, NotFound, StoreError
from k2d.filtering.policy import PAPER
from k2d.store import Lake
from k2d.store.files import Files
from k2d.store.manifest import Manifest


@pytest.fixture(scope="module")
def with_talks(finished: Lake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The dataset "talks": three rows in two shards."""
    lake = copy(finished, tmp_path_factory.mktemp("talks") / "lake")
    freeze(lake, name="talks", batches=["lectures"], policy=PAPER, shard_bytes=40_000)
    return lake


@pytest.fixture
def talks(with_talks: Lake, tmp_path: Path) -> Lake:
    return copy(with_talks, tmp_path / "lake")


def exported(lake: Lake, name: str, format: str, folder: Path) -> Path:
    return Path(export(lake, name, format, folder))


def stored(lake: Lake) -> dict[str, dict]:
    """Rows by id, in order."""
    found = {}
    for shard in lake.datasets.manifest("talks").shards:
        found |= {row["id"]: row for row in pq.read_table(lake.datasets.shard_path("talks", shard.number)).to_pylist()}
    return found


def test_huggingface(talks: Lake, tmp_path: Path) -> None:
    folder = exported(talks, "talks", "huggingface", tmp_path / "out")
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["audio"], datasets.Audio)
    rows = list(loaded.cast_column("audio", datasets.Audio(decode=False)))
    assert rows == list(stored(talks).values())


def test_the_card_tells_the_provenance(talks: Lake, tmp_path: Path) -> None:
    folder = exported(talks, "talks", "huggingface", tmp_path / "out")
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["language"] == ["en", "zh"]
    manifest = talks.datasets.manifest("talks")
    for fact in (
        manifest.digest,
        "fallback",
        "packaged:whisper-base",
        "6.750 s of 23.750 s",
        manifest.policy_hash,
    ):
        assert fact in body
    assert Manifest.model_validate_json((folder / "provenance.json").read_text()) == manifest


def test_webdataset(talks: Lake, tmp_path: Path) -> None:
    folder = exported(talks, "talks", "webdataset", tmp_path / "out")
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    assert len(tars) == 2
    rows = stored(talks)
    samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in samples] == list(rows)
    for sample in samples:
        row = rows[sample["__key__"]]
        assert sample["flac"] == row["audio"]["bytes"]
        assert sample["txt"].decode() == row["text"]
        assert json.loads(sample["json"]) == {name: value for name, value in row.items() if name != "audio"}


def test_nemo(talks: Lake, tmp_path: Path) -> None:
    folder = exported(talks, "talks", "nemo", tmp_path / "out")
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    rows = stored(talks)
    assert [line["id"] for line in lines] == list(rows)
    for line in lines:
        row = rows[line["id"]]
        audio, rate = soundfile.read(folder / line["audio_filepath"], dtype="int16")
        assert rate == 16_000
        assert np.array_equal(audio, unflac(row["audio"]["bytes"]))
        assert len(audio) == round(line["duration"] * rate)
        assert (line["text"], line["lang"]) == (row["text"], row["language"])


def test_lhotse(talks: Lake, tmp_path: Path) -> None:
    folder = exported(talks, "talks", "lhotse", tmp_path / "out")
    rows = stored(talks)
    cuts = list(lhotse.CutSet.from_shar(in_dir=str(folder)))
    assert [cut.id for cut in cuts] == list(rows)
    for cut in cuts:
        row = rows[cut.id]
        audio = unflac(row["audio"]["bytes"])
        assert cut.num_samples == len(audio)
        assert np.array_equal(np.rint(cut.load_audio()[0] * 32768).astype(np.int16), audio)
        assert [(s.text, s.language, s.duration) for s in cut.supervisions] == [
            (row["text"], row["language"], row["duration_s"])
        ]
        assert cut.custom["chunk_ids"] == row["chunk_ids"]


def test_kaldi(talks: Lake, tmp_path: Path) -> None:
    folder = exported(talks, "talks", "kaldi", tmp_path / "out")
    recordings, supervisions, _ = lhotse.kaldi.load_kaldi_data_dir(folder, sampling_rate=16_000)
    rows = stored(talks)
    assert {s.id: s.text for s in supervisions} == {row["id"]: row["text"] for row in rows.values()}
    assert {s.speaker for s in supervisions} == {row["recording_id"] for row in rows.values()}
    for one in recordings:
        audio = unflac(rows[one.id]["audio"]["bytes"])
        assert one.num_samples == len(audio)
        assert np.array_equal(np.rint(one.load_audio()[0] * 32768).astype(np.int16), audio)


def test_kaldi_files_are_sorted_as_kaldi_checks(talks: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kaldi, "RUN", 2)  # three rows in two runs: they must be merged
    folder = exported(talks, "talks", "kaldi", tmp_path / "out")
    for name in ("wav.scp", "segments", "text", "utt2spk", "spk2utt", "reco2dur"):
        lines = (folder / name).read_bytes().splitlines()
        assert lines == sorted(lines, key=lambda line: line.split()[0])
    speakers = dict(line.split() for line in (folder / "utt2spk").read_text().splitlines())
    listed = [line.split() for line in (folder / "spk2utt").read_text().splitlines()]
    assert {utt: speaker for speaker, *utts in listed for utt in utts} == speakers
    assert len(listed) == 2


@pytest.mark.parametrize("format", FORMATS)
def test_exports_are_the_same_every_time(talks: Lake, tmp_path: Path, format: str) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return {name: data.replace(str(folder).encode(), b"") for name, data in found.items()}

    first = exported(talks, "talks", format, tmp_path / "a")
    assert content(first) == content(exported(talks, "talks", format, tmp_path / "b"))


def flip_a_bit(path: Path) -> None:
    """In a row's audio; size and modification time stay."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("harm", [Path.unlink, flip_a_bit, lambda path: os.truncate(path, path.stat().st_size - 1)])
@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_shard_leaves_no_export(
    talks: Lake, tmp_path: Path, format: str, harm: Callable[[Path], None]
) -> None:
    talks.datasets.open_shard("talks", 1).close()  # opened before, so its hash is known
    harm(Path(talks.datasets.shard_path("talks", 1)))
    with pytest.raises((NotFound, StoreError)):
        export(talks, "talks", format, tmp_path / "out" / "deep")
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_overwritten(talks: Lake, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    for target in ("full", "file"):
        with pytest.raises(Conflict):
            export(talks, "talks", "nemo", tmp_path / target)
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    assert (exported(talks, "talks", "nemo", tmp_path / "empty") / "manifest.jsonl").is_file()


def test_what_is_asked_for_must_exist(talks: Lake, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="mp3") as caught:
        export(talks, "talks", "mp3", tmp_path / "out")
    assert "kaldi" in (caught.value.hint or "")
    with pytest.raises(NotFound):
        export(talks, "nothing", "nemo", tmp_path / "out")
    with pytest.raises(BadRequest):
        export(talks, "talks", "kaldi", tmp_path / "line\nbreak")


def test_flac_in_a_tar_is_16_khz_mono(talks: Lake, tmp_path: Path) -> None:
    row = next(iter(stored(talks).values()))
    told = soundfile.info(io.BytesIO(row["audio"]["bytes"]))
    assert (told.samplerate, told.channels, told.format, told.subtype) == (16_000, 1, "FLAC", "PCM_16")


# ---- as a stream of a tar --------------------------------------------------------------------------------------------


def unpacked(lake: Lake, format: str, folder: Path) -> Path:
    tar = folder / "talks.tar"
    with open(tar, "wb") as out:
        out.writelines(stream_export(lake, "talks", format))
    with tarfile.open(tar) as archive:
        archive.extractall(folder, **UNPACKED)
    return folder / "talks"


@pytest.mark.parametrize("format", FORMATS)
def test_a_streamed_export_has_the_files_of_an_export(format: str, talks: Lake, tmp_path: Path) -> None:
    whole = exported(talks, "talks", format, tmp_path / "whole")
    streamed = unpacked(talks, format, tmp_path)
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert {path.relative_to(streamed) for path in streamed.rglob("*") if path.is_file()} == names
    for name in names:
        expected = (whole / name).read_bytes()
        if name.name == "wav.scp":  # paths start with the folder, where the whole export has absolute ones
            expected = expected.replace(str(whole).encode(), b"talks")
        assert (streamed / name).read_bytes() == expected, name


def test_a_recording_in_two_shards_is_one_speaker(talks: Lake, tmp_path: Path) -> None:
    assert len(talks.datasets.manifest("talks").shards) == 2
    speakers = (unpacked(talks, "kaldi", tmp_path) / "spk2utt").read_text().splitlines()
    assert len({line.split()[0] for line in speakers}) == len(speakers)


def test_nothing_is_sent_of_a_dataset_that_lacks_a_shard(talks: Lake) -> None:
    os.unlink(talks.datasets.shard_path("talks", 1))
    with pytest.raises(StoreError, match="shard 1"):
        stream_export(talks, "talks", "nemo")
    with pytest.raises(BadRequest):
        stream_export(talks, "talks", "../nemo")


# ---- shard by shard -----------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data.replace(str(folder).encode(), b"") for name, data in found.items()}


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards that are opened from now on."""
    opened: list[int] = []
    frozen_open = FrozenDataset._errors

    def noted(self: FrozenDataset, shard: int):
        opened.append(shard)
        return frozen_open(self, shard)

    monkeypatch.setattr(FrozenDataset, "_errors", noted)
    return opened


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("end", [Killed(), OSError(errno.ENOSPC, "No space left on device")], ids=["kill", "full"])
def test_a_killed_export_and_one_without_space_go_on_where_they_stopped(
    talks: Lake, tmp_path: Path, format: str, end: BaseException, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = content(exported(talks, "talks", format, tmp_path / "whole"))
    monkeypatch.setattr(shards, "MOST_THREADS", 1)
    write = FORMATS[format].write_shard

    def until_the_second(dataset: FrozenDataset, folder: Path, shard: int) -> object:
        if shard == 1:
            raise end
        return write(dataset, folder, shard)

    with monkeypatch.context() as patch:
        patch.setitem(FORMATS, format, replace(FORMATS[format], write_shard=until_the_second))
        with pytest.raises((Killed, StoreError)):
            export(talks, "talks", format, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    read.clear()
    assert content(exported(talks, "talks", format, tmp_path / "out")) == expected
    assert set(read) == {1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake", "out", "whole"]


def test_two_exports_to_one_folder_do_not_mix(talks: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(dataset: FrozenDataset, folder: Path, shard: int) -> None:
        monkeypatch.undo()
        with pytest.raises(Conflict, match="another export"):
            export(talks, "talks", "nemo", tmp_path / "out")
        FORMATS["nemo"].write_shard(dataset, folder, shard)

    monkeypatch.setattr(shards, "MOST_THREADS", 1)
    monkeypatch.setitem(FORMATS, "nemo", replace(FORMATS["nemo"], write_shard=meanwhile))
    export(talks, "talks", "nemo", tmp_path / "out")
    assert content(tmp_path / "out") == content(exported(talks, "talks", "nemo", tmp_path / "again"))


@pytest.mark.parametrize("format", [name for name, how in FORMATS.items() if how.remote])
def test_an_export_to_an_object_store_has_the_same_files(talks: Lake, tmp_path: Path, format: str) -> None:
    url = f"memory://{tmp_path.name}/{format}"
    assert export(talks, "talks", format, url) == url
    target = Files(url)
    found = {path: target.read(path) for path in target.listing("")}
    assert found == content(exported(talks, "talks", format, tmp_path / "local"))
    with pytest.raises(Conflict, match="not empty"):
        export(talks, "talks", format, url)


def test_an_export_to_an_object_store_goes_on(
    talks: Lake, tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{tmp_path.name}/killed"
    monkeypatch.setattr(shards, "MOST_THREADS", 1)
    put = Files.put

    def until_the_second(self: Files, source: Path, path: str) -> None:
        if path.endswith("shard-000001.tar"):
            raise Killed
        put(self, source, path)

    with monkeypatch.context() as patch:
        patch.setattr(Files, "put", until_the_second)
        with pytest.raises(Killed):
            export(talks, "talks", "webdataset", url)
    read.clear()
    with pytest.raises(Conflict):  # of another format: not to be mixed
        export(talks, "talks", "lhotse", url)
    export(talks, "talks", "webdataset", url)
    assert set(read) == {1}
    found = {path: Files(url).read(path) for path in Files(url).listing("")}
    assert found == content(exported(talks, "talks", "webdataset", tmp_path / "local"))


def test_an_export_of_paths_of_this_machine_needs_a_local_folder(talks: Lake) -> None:
    with pytest.raises(BadRequest, match="kaldi"):
        export(talks, "talks", "kaldi", "memory://anywhere")


class Remote:
    """An API's datasets, and how many of their shards are open."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.asked: list[int] = []
        self.damaged = False

    def manifest(self, name: str) -> Manifest:
        return self.lake.datasets.manifest(name)

    def shard(self, name: str, number: int) -> Iterator[bytes]:
        self.asked.append(number)
        with self.lake.datasets.open_shard(name, number) as file:
            while block := file.read(1000):
                yield block[:-1] if self.damaged else block


@pytest.mark.parametrize("format", FORMATS)
def test_a_remote_dataset_is_exported_shard_by_shard(talks: Lake, tmp_path: Path, format: str) -> None:
    remote = Remote(talks)
    export_pulled(remote, "talks", format, tmp_path / "out")
    assert content(tmp_path / "out") == content(exported(talks, "talks", format, tmp_path / "local"))
    assert sorted(remote.asked) == [0, 1]
    remote.damaged = True
    with pytest.raises(StoreError, match="arrived damaged"):
        export_pulled(remote, "talks", format, tmp_path / "damaged")
