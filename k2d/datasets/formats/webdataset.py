"""WebDataset: tar files with key.flac, key.txt and key.json for each row, in that order.

export(lake, "lectures-v1", "webdataset", "out")
"""

import tarfile
from pathlib import Path

from k2d.datasets.formats.tar import add_file
from k2d.datasets.read import FrozenDataset


def write_webdataset(dataset: FrozenDataset, folder: Path, final: Path) -> None:
    """Write one tar file per shard."""
    for shard in dataset.shards:
        with tarfile.open(folder / f"shard-{shard.number:06d}.tar", "w") as tar:
            for row in dataset.rows(shard.number):
                add_file(tar, f"{row.id}.flac", row.flac)
                add_file(tar, f"{row.id}.txt", row.text.encode())
                add_file(tar, f"{row.id}.json", row.json())
