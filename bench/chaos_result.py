"""What a run of the chaos bench ends with, to compare a disturbed run with the undisturbed one."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from k2d.client.http import Client
from k2d.documents import BatchStatus

SHARDS: Final = ("labels", "hypotheses", "facts")
# what differs between two runs that did the same: times, and who worked how long
OF_THE_RUN: Final = ("created_at", "wall_s", "worked_s", "jobs", "processes")
VERSIONS: Final = ("versions", "k2d_version", "labeled_by", "validated_by")
OUTCOMES: Final = ("accepted", "salvaged", "rejected", "quarantined", "silence")


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything that must be equal."""

    status: dict[str, Any]
    chunks: list[str]  # of the batch, as the API lists them; one that is there twice is twice in here
    rows: dict[str, str]  # chunk → hash of what the API says of it
    files: dict[str, str]  # path in the store → hash of its bytes, or of its rows
    downloads: dict[str, str]  # shard of the dataset as the API sends it → hash
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Differences:
    """How a disturbed run differs from the undisturbed one; empty and zero where nothing was lost."""

    unaccounted_s: float
    doubles: int
    bytes_differ: list[str]
    others: list[str]

    @property
    def is_none(self) -> bool:
        return not (self.unaccounted_s or self.doubles or self.bytes_differ or self.others)

    def sentences(self) -> list[str]:
        lines = list(self.others)
        if self.unaccounted_s:
            lines.append(f"{self.unaccounted_s:.3f} s of the recordings are unaccounted for")
        if self.doubles:
            lines.append(f"{self.doubles} chunks are there twice")
        if self.bytes_differ:
            more = f" and {len(self.bytes_differ) - 5} more" if len(self.bytes_differ) > 5 else ""
            lines.append(f"different bytes: {', '.join(self.bytes_differ[:5])}{more}")
        return lines


def collect(client: Client, store: Path, *, batch: str, dataset: str, by_content: bool = False) -> RunResult:
    """Read the results of a finished run.

    Args:
        by_content: hash the rows of shards instead of their bytes, and leave out which version of k2d wrote what: a
            changed byte that changes nothing that is read is no loss.
    """
    left_out = OF_THE_RUN + (VERSIONS if by_content else ())
    rows = list(client.chunks(batch))
    manifest = client.manifest(dataset)
    hashed = _content_of_shard if by_content else _sha256
    files = {str(path.relative_to(store)): hashed(path) for path in _shards(store)}
    for path in sorted((store / "examinations").rglob("*.json")):
        files[str(path.relative_to(store))] = _sha256(path)
    for path in sorted((store / "batches").rglob("results/*/*.json")):
        document = _without(json.loads(path.read_bytes()), left_out)
        files[str(path.relative_to(store))] = _hash(document)
    downloads = {
        f"shard {number}": hashlib.sha256(b"".join(client.shard(dataset, number))).hexdigest()
        for number in range(len(manifest.shards))
    }
    return RunResult(
        status=_without(client.status(batch).model_dump(mode="json", by_alias=True), left_out),
        chunks=[row.id for row in rows],
        rows={row.id: _hash(_without(row.model_dump(mode="json"), left_out)) for row in rows},
        files=files,
        downloads=downloads,
        manifest=_without(manifest.model_dump(mode="json"), left_out),
    )


def compare(calm: RunResult, other: RunResult) -> Differences:
    """Compare a disturbed run with the undisturbed one."""
    before, after = calm.status["ledger"]["seconds"], other.status["ledger"]["seconds"]
    sums = abs(_ms(after["in"]) - sum(_ms(after[name]) for name in OUTCOMES))
    lost = abs(_ms(before["in"]) - _ms(after["in"]))
    doubles = sum(count - 1 for count in Counter(other.chunks).values())
    others: list[str] = []
    for what in ("status", "rows", "manifest"):
        others += _differences(getattr(calm, what), getattr(other, what), what)
    return Differences(
        unaccounted_s=(sums + lost) / 1000,
        doubles=doubles,
        bytes_differ=[*_keys_that_differ(calm.files, other.files), *_keys_that_differ(calm.downloads, other.downloads)],
        others=others,
    )


def unaccounted_s(status: BatchStatus) -> float:
    """Seconds of a ledger that went in and came out nowhere."""
    seconds = status.ledger.seconds.model_dump(by_alias=True)
    return abs(_ms(seconds["in"]) - sum(_ms(seconds[name]) for name in OUTCOMES)) / 1000


def _shards(store: Path) -> Iterator[Path]:
    for folder in (*SHARDS, "datasets"):
        yield from sorted((store / folder).rglob("*.parquet"))


def _content_of_shard(path: Path) -> str:
    """The hash of a shard's rows and metadata, without the version that wrote it."""
    table = pq.read_table(path)
    meta = json.loads((table.schema.metadata or {}).get(b"k2d", b"{}"))
    return _hash([_without(meta, VERSIONS), repr(table.schema.types), table.to_pylist()])


def _without(document: Any, names: tuple[str, ...]) -> Any:
    """A JSON document without the members of these names, at any depth."""
    if isinstance(document, dict):
        return {key: _without(value, names) for key, value in document.items() if key not in names}
    if isinstance(document, list):
        return [_without(value, names) for value in document]
    return document


def _differences(before: Any, after: Any, where: str) -> list[str]:
    """Sentences about the members in which two documents differ."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        inner = (
            _differences(before.get(key), after.get(key), f"{where}.{key}")
            for key in sorted({*before, *after}, key=str)
        )
        return [sentence for sentences in inner for sentence in sentences]
    return [f"{where}: {_short(before)} undisturbed, {_short(after)} disturbed"]


def _keys_that_differ(before: dict[str, str], after: dict[str, str]) -> list[str]:
    changed = (key for key in before.keys() & after.keys() if before[key] != after[key])
    gone = (f"{key} (missing)" for key in before.keys() - after.keys())
    return sorted((*changed, *gone, *(f"{key} (not in the undisturbed run)" for key in after.keys() - before.keys())))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) < 200 else text[:200] + "…"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_text).encode()).hexdigest()


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
