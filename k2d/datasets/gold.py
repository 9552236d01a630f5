"""Gold rows: segments whose text a person has confirmed or written, with their audio, as rows of a dataset."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from k2d.audio import decode_flac, encode_flac
from k2d.corpus.calibration.desk import labels_of_batch
from k2d.corpus.distinct import distinct_parts
from k2d.datasets.reviewed import reviewed_segments
from k2d.datasets.rows import SCHEMA, write_groups
from k2d.errors import BadRequest
from k2d.keys import chunk_id, segment_id
from k2d.schema import SAMPLE_RATE_HZ, Batch, Chunk
from k2d.store import Lake
from k2d.store.parquet import describe, writer
from k2d.text.reading import read


@dataclass(slots=True)
class GoldCounts:
    """What became of the reviewed segments."""

    rows: int = 0
    seconds: float = 0.0
    corrected: int = 0  # rows whose text is not the label
    disputed: int = 0  # segments left out since reviewers disagree
    without_text: int = 0  # segments left out since nothing is said, or nobody wrote down what is


def write_gold(lake: Lake, batches: Sequence[Batch], path: Path) -> GoldCounts:
    """Write the reviewed segments of these batches as one Parquet file, in the form of a dataset's shards.

        write_gold(lake, [batch], Path("gold.parquet")).rows

    The text is what people say is said; the rows have no distances. An existing file is not overwritten.

    Raises:
        BadRequest: no row, or the file exists or cannot be written.
        StoreError
    """
    counts = GoldCounts()
    rows = gold_rows(lake, batches, counts)
    first = next(rows, None)
    if first is None:
        raise BadRequest("no segment of these batches has a reviewed text", hint="`k2d review` draws segments")
    try:
        with path.open("xb") as file, writer(file, describe(SCHEMA, {"gold": True}), checksums=False) as out:
            write_groups(out, chain((first,), rows), SCHEMA)
    except FileExistsError as error:
        raise BadRequest(f"{path} exists", hint="choose another name") from error
    except OSError as error:
        raise BadRequest(f"cannot write {path}: {error}") from error
    return counts


def gold_rows(lake: Lake, batches: Sequence[Batch], counts: GoldCounts) -> Iterator[dict[str, Any]]:
    """Iterate over the gold rows (fields of `k2d.datasets.rows.SCHEMA`), recording by recording; updates `counts`.

    Raises:
        StoreError
    """
    reviewed = {key for batch in batches for key in labels_of_batch(lake, batch)}
    for part in distinct_parts(lake, batches):
        names = ("label_key", "facts_key", "recording_id", "recording")
        columns = [part.part.recordings.column(name) for name in names]
        for fresh, *values in zip(part.fresh.tolist(), *columns, strict=True):
            if fresh and values[0] in reviewed:
                yield from _of_label(lake, dict(zip(names, values, strict=True)), counts)


def _of_label(lake: Lake, names: dict[str, str], counts: GoldCounts) -> Iterator[dict[str, Any]]:
    texts = gold_texts(lake, names["label_key"], counts)
    wanted = frozenset(chunk for chunk, _ in texts)
    for chunk, flac in lake.labels.read(names["label_key"], audio=True, only=wanted):
        for number in range(len(chunk.segments)):
            text = texts.get((chunk.index, number))
            if text is not None and chunk.segments[number].end_s > chunk.segments[number].start_s:
                yield _row(names, chunk, number, text, flac or b"", counts)


def gold_texts(lake: Lake, label_key: str, counts: GoldCounts) -> dict[tuple[int, int], str]:
    """What people say is said in the segments of a label, by (chunk, segment); updates `counts`.

    Segments whose reviewers disagree are left out, as are those without speech, or whose text nobody wrote.
    """
    texts: dict[tuple[int, int], str] = {}
    for own in reviewed_segments(lake, label_key):
        if own.text is not None:
            texts[own.chunk, own.segment] = own.text
        else:
            counts.disputed += own.is_disputed
            counts.without_text += not own.is_disputed
    return texts


def _row(
    names: dict[str, str], chunk: Chunk, number: int, text: str, flac: bytes, counts: GoldCounts
) -> dict[str, Any]:
    segment = chunk.segments[number]
    first, last = (round((at - chunk.start_s) * SAMPLE_RATE_HZ) for at in (segment.start_s, segment.end_s))
    start_ms, end_ms = round(1000 * segment.start_s), round(1000 * segment.end_s)
    row_id, chunk_name = (
        f"{names['recording_id']}-{start_ms:09d}-{end_ms:09d}",
        chunk_id(names["facts_key"], chunk.index),
    )
    duration_s = round(segment.end_s - segment.start_s, 3)
    counts.rows += 1
    counts.seconds += duration_s
    counts.corrected += read(text).tokens != read(segment.text).tokens
    return {
        "id": row_id,
        "audio": {"bytes": encode_flac(decode_flac(flac)[first:last]), "path": f"{row_id}.flac"},
        "text": text,
        "segments": [{"start_s": 0.0, "end_s": duration_s, "text": text}],
        "duration_s": duration_s,
        "recording_id": names["recording_id"],
        "source": names["recording"],
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "language": segment.language,
        "previous_text": "",
        "chunk_ids": [chunk_name],
        "segment_ids": [segment_id(chunk_name, number)],
        "distances": [],
        "distance": 0.0,
        "avg_logprob": segment.avg_logprob,
    }
