"""The shards of a local lake, to compare two runs byte for byte."""

import hashlib
from pathlib import Path


def shards(store: Path) -> dict[str, str]:
    """Every label, hypotheses and facts shard of a local lake: its hash by its path."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("labels", "hypotheses", "facts")
        for path in sorted((store / folder).rglob("*.parquet"))
    }
