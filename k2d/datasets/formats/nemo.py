"""The dataset as a NeMo manifest, which is also plain JSON lines: audio paths relative to the manifest's folder."""

from pathlib import Path

from k2d.datasets.read import Frozen, folder_of, line


def write_nemo(frozen: Frozen, folder: Path, final: Path) -> None:
    """manifest.jsonl (audio_filepath, duration, text, lang, and every column of the dataset) and audio/ab/<id>.flac."""
    with open(folder / "manifest.jsonl", "wb") as manifest:
        for shard in frozen.manifest.shards:
            for row in frozen.rows(shard.number):
                path = f"audio/{folder_of(row)}/{row.id}.flac"
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(row.flac)
                known = {"audio_filepath": path, "duration": row.duration_s, "text": row.text, "lang": row.language}
                manifest.write(line({**known, **row.fields}))
