"""Exports a dataset as a stream of a tar file: for downloads. At most one shard's files are on the disk at a time."""

import heapq
import json
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, Final

from k2d.datasets.formats import FORMATS
from k2d.datasets.formats.huggingface import card, shard_path
from k2d.datasets.read import FrozenDataset
from k2d.errors import BadRequest
from k2d.store import Lake
from k2d.tarstream import BLOCK_BYTES, END, member, member_of

# Files that a format has once, made from those of all shards. The others are the shards' own.
_SPEAKERS: Final = "spk2utt"  # Kaldi's: a line a recording, which may have rows in several shards
_LISTS: Final = {"nemo": ("manifest.jsonl",)}
_SORTED: Final = {"kaldi": ("wav.scp", "segments", "text", "utt2spk", _SPEAKERS, "reco2dur", "raw_text")}


def stream_export(lake: Lake, name: str, format: str) -> Iterator[bytes]:
    """A dataset in `format` (a key of FORMATS) as the bytes of a tar, whose files lie in a folder of its name.

        with open("lectures-v1.tar", "wb") as out:
            out.writelines(stream_export(lake, "lectures-v1", "nemo"))

    The files are those of `k2d.datasets.formats.export`, except that paths in Kaldi's wav.scp start with the folder's
    name: Kaldi's tools run beside the folder.

    Raises:
        BadRequest: an unknown format.
        NotFound: no such dataset.
        StoreError: at once where a shard is gone; at the place of a damaged one.
    """
    if format not in FORMATS:
        raise BadRequest(f"unknown export format: {format[:40]!r}", hint=f"formats are {', '.join(FORMATS)}")
    dataset = FrozenDataset(lake, name)
    dataset.check()
    return _huggingface(lake, dataset) if format == "huggingface" else _by_shard(dataset, format)


def _huggingface(lake: Lake, dataset: FrozenDataset) -> Iterator[bytes]:
    """The stored shards as they are, with card and manifest."""
    manifest = dataset.manifest
    root = manifest.name
    yield from member(f"{root}/README.md", card(manifest).encode())
    text = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=2, allow_nan=False)
    yield from member(f"{root}/provenance.json", (text + "\n").encode())
    for shard in manifest.shards:
        with lake.datasets.open_shard(root, shard.number, manifest=manifest) as file:
            yield from member_of(f"{root}/{shard_path(shard.number, len(manifest.shards))}", file, shard.bytes)
    yield END


def _by_shard(dataset: FrozenDataset, format: str) -> Iterator[bytes]:
    """Write one shard's files after the other into a folder, and send them; lists of all rows come last."""
    root = dataset.manifest.name
    listed = (*_LISTS.get(format, ()), *_SORTED.get(format, ()))
    with tempfile.TemporaryDirectory(prefix="k2d-export-") as scratch:
        lists = Path(scratch) / "lists"  # <file>.<shard>
        lists.mkdir()
        for shard in dataset.manifest.shards:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                FORMATS[format](dataset.with_shards([shard]), Path(folder), Path(root))
                for path in sorted(Path(folder).rglob("*")):
                    relative = path.relative_to(folder).as_posix()
                    if relative in listed:
                        path.rename(lists / f"{relative}.{shard.number:06d}")
                    elif path.is_file():
                        with open(path, "rb") as file:
                            yield from member_of(f"{root}/{relative}", file, path.stat().st_size)
        for name in listed:
            pieces = sorted(lists.glob(f"{name}.*"))
            if pieces:
                yield from _whole(f"{root}/{name}", pieces, sort=name in _SORTED.get(format, ()))
    yield END


def _whole(name: str, pieces: list[Path], *, sort: bool) -> Iterator[bytes]:
    """A list of all rows from those of the shards, as a file of the tar."""
    with tempfile.TemporaryFile() as whole:
        files: list[IO[bytes]] = [open(piece, "rb") for piece in pieces]  # noqa: SIM115 - closed below
        try:
            if not sort:
                for file in files:
                    while block := file.read(BLOCK_BYTES):
                        whole.write(block)
            elif name.endswith(f"/{_SPEAKERS}"):
                whole.writelines(_merged_speakers(files))
            else:
                lines: Iterator[bytes] = heapq.merge(*files, key=_key)
                whole.writelines(lines)
        finally:
            for file in files:
                file.close()
        size = whole.tell()
        whole.seek(0)
        yield from member_of(name, whole, size)


def _merged_speakers(files: Sequence[IO[bytes]]) -> Iterator[bytes]:
    for speaker, lines in groupby(heapq.merge(*files, key=_key), key=_key):
        utterances = sorted(utterance for line in lines for utterance in line.split()[1:])
        yield b" ".join([speaker, *utterances]) + b"\n"


def _key(line: bytes) -> bytes:
    """The first word of a line, by which Kaldi's files are sorted bytewise."""
    return line.split(maxsplit=1)[0]
