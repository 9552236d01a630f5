"""NeMo: a manifest of JSON lines, with audio paths relative to the manifest's folder.

export(lake, "lectures-v1", "nemo", "out")
"""

import shutil
from pathlib import Path
from typing import Any, Final

from k2d.datasets.formats.shards import DatasetFormat, fragment
from k2d.datasets.read import FrozenDataset, folder_of, json_line

_LINES: Final = "manifest"


def _write_shard(dataset: FrozenDataset, folder: Path, shard: int) -> None:
    """Write audio/ab/<id>.flac, and the shard's lines of the manifest."""
    with open(fragment(folder, _LINES, shard), "wb") as manifest:
        for row in dataset.rows(shard):
            path = f"audio/{folder_of(row)}/{row.id}.flac"
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(row.flac)
            known = {"audio_filepath": path, "duration": row.duration_s, "text": row.text, "lang": row.language}
            manifest.write(json_line({**known, **row.fields}))


def _finish(dataset: FrozenDataset, folder: Path, final: Path, notes: list[Any]) -> None:
    """Write manifest.jsonl: audio_filepath, duration, text, lang, all columns."""
    with open(folder / "manifest.jsonl", "wb") as manifest:
        for shard in range(len(notes)):
            with open(fragment(folder, _LINES, shard), "rb") as lines:
                shutil.copyfileobj(lines, manifest)


NEMO: Final = DatasetFormat(_write_shard, _finish)
