"""The dataset as WebDataset tars: for each row key.flac, key.txt and key.json, in that order."""

import tarfile
from pathlib import Path

from k2d.datasets.formats.tar import add
from k2d.datasets.read import Frozen


def write_webdataset(frozen: Frozen, folder: Path, final: Path) -> None:
    """One tar for each shard."""
    for shard in frozen.manifest.shards:
        with tarfile.open(folder / f"shard-{shard.number:06d}.tar", "w") as tar:
            for row in frozen.rows(shard.number):
                add(tar, f"{row.id}.flac", row.flac)
                add(tar, f"{row.id}.txt", row.text.encode())
                add(tar, f"{row.id}.json", row.json())
