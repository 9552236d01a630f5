"""Lhotse Shar: cuts.NNNNNN.jsonl.gz and recording.NNNNNN.tar, read by CutSet.from_shar(in_dir=…).

    export(lake, "lectures-v1", "lhotse", "out")

Written without lhotse, after the description of the format. The folder has no other files, because lhotse's reader
treats every file as a field.
"""

import gzip
import tarfile
from pathlib import Path
from typing import Any, Final

from k2d.datasets.formats.shards import DatasetFormat
from k2d.datasets.formats.tar import add_file
from k2d.datasets.read import DatasetRow, FrozenDataset, json_line
from k2d.schema import SAMPLE_RATE_HZ


def _write_shard(dataset: FrozenDataset, folder: Path, shard: int) -> None:
    """Write one pair of files, with one cut with one supervision per row."""
    cuts = folder / f"cuts.{shard:06d}.jsonl.gz"
    recordings = folder / f"recording.{shard:06d}.tar"
    # no file name and no time in the gzip header, so that equal content gives equal bytes
    with (
        open(cuts, "wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as out,
        tarfile.open(recordings, "w") as tar,
    ):
        for row in dataset.rows(shard):
            out.write(json_line(_cut(row)))
            add_file(tar, f"{row.id}.flac", row.flac)
            add_file(tar, f"{row.id}.json", json_line(_recording(row)))


def _cut(row: DatasetRow) -> dict[str, Any]:
    supervision = {
        "id": row.id,
        "recording_id": row.id,
        "start": 0.0,
        "duration": row.duration_s,
        "channel": 0,
        "text": row.text,
        "language": row.language,
    }
    return {
        "id": row.id,
        "start": 0.0,
        "duration": row.duration_s,
        "channel": 0,
        "supervisions": [supervision],
        "recording": _recording(row),
        "custom": {name: value for name, value in row.fields.items() if name not in ("id", "text", "duration_s")},
        "type": "MonoCut",
    }


def _recording(row: DatasetRow) -> dict[str, Any]:
    """A recording with a placeholder source, which lhotse's reader replaces by the audio in the tar file."""
    return {
        "id": row.id,
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": SAMPLE_RATE_HZ,
        "num_samples": round(row.duration_s * SAMPLE_RATE_HZ),
        "duration": row.duration_s,
        "channel_ids": [0],
    }


LHOTSE: Final = DatasetFormat(_write_shard)
