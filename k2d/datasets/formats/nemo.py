"""NeMo: a manifest of JSON lines, with audio paths relative to the manifest's folder.

export(lake, "lectures-v1", "nemo", "out")
"""

from pathlib import Path

from k2d.datasets.read import FrozenDataset, folder_of, json_line


def write_nemo(dataset: FrozenDataset, folder: Path, final: Path) -> None:
    """Write manifest.jsonl (audio_filepath, duration, text, lang, all columns) and audio/ab/<id>.flac."""
    with open(folder / "manifest.jsonl", "wb") as manifest:
        for shard in dataset.shards:
            for row in dataset.rows(shard.number):
                path = f"audio/{folder_of(row)}/{row.id}.flac"
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(row.flac)
                known = {"audio_filepath": path, "duration": row.duration_s, "text": row.text, "lang": row.language}
                manifest.write(json_line({**known, **row.fields}))
