"""WebDataset: tar files with key.flac, key.txt and key.json for each row, in that order.

export(lake, "lectures-v1", "webdataset", "out")
"""

import tarfile
from pathlib import Path
from typing import Final

from k2d.datasets.formats.shards import DatasetFormat
from k2d.datasets.formats.tar import add_file
from k2d.datasets.read import FrozenDataset


def _write_shard(dataset: FrozenDataset, folder: Path, shard: int) -> None:
    """Write one tar file."""
    with tarfile.open(folder / f"shard-{shard:06d}.tar", "w") as tar:
        for row in dataset.rows(shard):
            add_file(tar, f"{row.id}.flac", row.flac)
            add_file(tar, f"{row.id}.txt", row.text.encode())
            add_file(tar, f"{row.id}.json", row.json())


WEBDATASET: Final = DatasetFormat(_write_shard)
