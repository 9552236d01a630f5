"""Kaldi: a data directory with wav.scp, segments, text, utt2spk, spk2utt, reco2dur and 16-bit WAV files.

    export(lake, "lectures-v1", "kaldi", "out")

Kaldi requires every file to be sorted bytewise by its key, so rows are sorted in runs on disk and merged. The recording
is used as the speaker, since speakers are unknown; utterances of one recording sort together.
"""

import heapq
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Final

import soundfile

from k2d.audio import decode_flac
from k2d.datasets.formats.shards import DatasetFormat, fragment
from k2d.datasets.read import FrozenDataset, folder_of
from k2d.datasets.scripts import RAW_TEXT
from k2d.errors import BadRequest
from k2d.schema import SAMPLE_RATE_HZ

RUN: Final = 100_000  # rows sorted in memory at once; chosen: about 50 MB

_ENTRIES: Final = "entries"

Entry = list[str]  # id, recording id, text, duration, path of the WAV below the folder, raw text


def _write_shard(dataset: FrozenDataset, folder: Path, shard: int) -> None:
    """Write wav/ab/<id>.wav, and the shard's entries."""
    with open(fragment(folder, _ENTRIES, shard), "w", encoding="utf-8") as entries:
        for row in dataset.rows(shard):
            path = f"wav/{folder_of(row)}/{row.id}.wav"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / path, decode_flac(row.flac), SAMPLE_RATE_HZ, subtype="PCM_16")
            text, raw_text = (" ".join(value.split()) for value in (row.text, row.fields.get(RAW_TEXT, "")))
            entry: Entry = [row.id, row.recording_id, text, f"{row.duration_s:.3f}", path, raw_text]
            entries.write(json.dumps(entry) + "\n")


def _finish(dataset: FrozenDataset, folder: Path, final: Path, notes: list[Any]) -> None:
    """Write the files of the directory. wav.scp has absolute paths under `final`, as Kaldi's scripts expect.

    Raises:
        BadRequest: the path `final` has a line break, which wav.scp cannot express.
    """
    if len(str(final).splitlines()) > 1:
        raise BadRequest("wav.scp cannot have the path of a folder with a line break", hint="choose another folder")
    with ExitStack() as stack:
        runs = [stack.enter_context(run) for run in _sorted_runs(_entries(folder, len(notes)))]
        entries = heapq.merge(*(map(json.loads, run) for run in runs))
        names = ["wav.scp", "segments", "text", "utt2spk", "spk2utt", "reco2dur"]
        names += [RAW_TEXT] * dataset.manifest.has_raw_text
        out = {name: stack.enter_context(open(folder / name, "w", encoding="utf-8")) for name in names}
        for speaker, group in groupby(entries, key=lambda entry: entry[1]):
            utterances = []
            for key, _, text, duration, path, raw_text in group:
                utterances.append(key)
                out["wav.scp"].write(f"{key} {final / path}\n")
                out["segments"].write(f"{key} {key} 0.000 {duration}\n")
                out["text"].write(f"{key} {text}".rstrip() + "\n")
                if RAW_TEXT in out:
                    out[RAW_TEXT].write(f"{key} {raw_text}".rstrip() + "\n")
                out["utt2spk"].write(f"{key} {speaker}\n")
                out["reco2dur"].write(f"{key} {duration}\n")
            out["spk2utt"].write(f"{speaker} {' '.join(utterances)}\n")


def _entries(folder: Path, shards: int) -> Iterator[Entry]:
    for shard in range(shards):
        with open(fragment(folder, _ENTRIES, shard), encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _sorted_runs(entries: Iterator[Entry]) -> Iterator[IO[str]]:
    """Write entries to temporary files of JSON lines, each sorted by id. Closing a file removes it."""
    while True:
        run = sorted(entry for _, entry in zip(range(RUN), entries, strict=False))
        if not run:
            return
        file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - the caller closes it
        file.writelines(json.dumps(entry) + "\n" for entry in run)
        file.seek(0)
        yield file


KALDI: Final = DatasetFormat(_write_shard, _finish, remote=False)
