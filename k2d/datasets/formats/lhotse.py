"""The dataset as Lhotse Shar: cuts.NNNNNN.jsonl.gz and recording.NNNNNN.tar, read by CutSet.from_shar(in_dir=…).

Written by hand after the format's description, so that exporting needs no lhotse. The folder holds nothing else:
the reader takes every file for a field.
"""

import gzip
import tarfile
from pathlib import Path
from typing import Any

from k2d.datasets.formats.tar import add
from k2d.datasets.read import Frozen, Row, line
from k2d.schema import SAMPLE_RATE_HZ


def write_lhotse(frozen: Frozen, folder: Path, final: Path) -> None:
    """One pair of files for each shard; one cut with one supervision for each row."""
    for shard in frozen.manifest.shards:
        cuts = folder / f"cuts.{shard.number:06d}.jsonl.gz"
        recordings = folder / f"recording.{shard.number:06d}.tar"
        # no file name and no time in the gzip header: equal content, equal bytes
        with (
            open(cuts, "wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as out,
            tarfile.open(recordings, "w") as tar,
        ):
            for row in frozen.rows(shard.number):
                out.write(line(_cut(row)))
                add(tar, f"{row.id}.flac", row.flac)
                add(tar, f"{row.id}.json", line(_recording(row)))


def _cut(row: Row) -> dict[str, Any]:
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


def _recording(row: Row) -> dict[str, Any]:
    """A placeholder: the reader puts the tar's bytes in its source. Times in whole milliseconds are whole samples."""
    return {
        "id": row.id,
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": SAMPLE_RATE_HZ,
        "num_samples": round(row.duration_s * SAMPLE_RATE_HZ),
        "duration": row.duration_s,
        "channel_ids": [0],
    }
