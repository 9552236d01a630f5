"""Training rows: adjacent accepted chunks of one recording, packed to at most 30 s, as a student trains on them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from k2d.audio import decode_flac, encode_flac
from k2d.chunks import pack_accepted
from k2d.datasets.plan import Selected
from k2d.errors import NotFound, StoreError
from k2d.schema import SAMPLE_RATE_HZ, Chunk, Samples, Segment, join_text
from k2d.shards.facts import main_language, mean_logprob
from k2d.shards.parquet import AUDIO
from k2d.store import Lake

ROWS_PER_GROUP = 64  # at most about 32 MB of FLAC in memory, for the writer and for whoever reads
SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # "{recording_id}-{start}-{end}", in milliseconds
        ("audio", AUDIO),  # FLAC, 16 kHz mono
        ("text", pa.string()),
        # times relative to this row's audio
        ("segments", pa.list_(pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())]))),
        ("duration_s", pa.float64()),
        ("recording_id", pa.string()),
        ("source", pa.string()),  # the file's name in its batch
        ("start_s", pa.float64()),  # in the recording
        ("end_s", pa.float64()),
        ("language", pa.string()),
        ("previous_text", pa.string()),  # of the chunk right before, if it was accepted; '' otherwise
        ("chunk_ids", pa.list_(pa.string())),
        ("distances", pa.list_(pa.float64())),  # by the policy's metric, one for each chunk
        ("distance", pa.float64()),  # the largest of them
        ("avg_logprob", pa.float64()),  # the teacher's, mean over tokens
    ]
)


def rows_of(lake: Lake, chosen: Selected, *, max_gap_s: float) -> Iterator[dict[str, Any]]:
    """Rows of one recording in order of time; its audio is streamed, one row group of its shard at a time.

    Raises:
        StoreError: its labels are gone or damaged.
    """
    wanted = frozenset(chosen.indices.tolist())
    distances = dict(zip(chosen.indices.tolist(), chosen.distances.tolist(), strict=True))
    try:
        chunks = {chunk.index: chunk for chunk, _ in lake.labels(chosen.label_key, only=wanted)}
        audio = lake.labels(chosen.label_key, audio=True, only=wanted)
        before: tuple[int, str] = (-2, "")  # last chunk and text of the row before
        for group in pack_accepted(list(chunks.values()), max_gap_s=max_gap_s):
            flacs = [flac for _, flac in islice(audio, len(group)) if flac is not None]
            row = _row(chosen, [chunks[index] for index in group], flacs, [distances[index] for index in group])
            row["previous_text"] = before[1] if before[0] == group[0] - 1 else ""
            before = (group[-1], row["text"])
            yield row
    except (NotFound, KeyError) as error:
        hint = "run `k2d resume`: it labels again what is missing"
        raise StoreError(f"the labels of {chosen.source!r} ({chosen.label_key}) are gone", hint=hint) from error


def _row(chosen: Selected, chunks: list[Chunk], flacs: list[bytes], distances: list[float]) -> dict[str, Any]:
    start_s, end_s = chunks[0].start_s, chunks[-1].end_s
    segments = [segment for chunk in chunks for segment in chunk.segments]
    row_id = f"{chosen.recording_id}-{round(start_s * 1000):09d}-{round(end_s * 1000):09d}"
    return {
        "id": row_id,
        "audio": {"bytes": flacs[0] if len(flacs) == 1 else encode_flac(join(chunks, flacs)), "path": f"{row_id}.flac"},
        "text": join_text(segment.text for segment in segments),
        "segments": [_relative(segment, start_s) for segment in segments],
        "duration_s": round(end_s - start_s, 3),
        "recording_id": chosen.recording_id,
        "source": chosen.source,
        "start_s": start_s,
        "end_s": end_s,
        "language": main_language(segments),
        "chunk_ids": [f"{chosen.facts_key}-{chunk.index:05d}" for chunk in chunks],
        "distances": distances,
        "distance": max(distances),
        "avg_logprob": mean_logprob(segments),
    }


def join(chunks: list[Chunk], flacs: list[bytes]) -> Samples:
    """Lay the chunks' audio where it was in the recording; what lies between is digital silence of the true length.

    Returns samples of shape (n,), from the first chunk's start to the last one's end.
    """
    start, stop = _sample(chunks[0].start_s), _sample(chunks[-1].end_s)
    joined = np.zeros(stop - start, dtype=np.int16)
    for chunk, flac in zip(chunks, flacs, strict=True):
        place = _sample(chunk.start_s) - start
        heard = decode_flac(flac)[: len(joined) - place]
        joined[place : place + len(heard)] = heard
    return joined


def _sample(time_s: float) -> int:
    return round(time_s * SAMPLE_RATE_HZ)


def _relative(segment: Segment, start_s: float) -> dict[str, Any]:
    return {
        "start_s": round(segment.start_s - start_s, 3),
        "end_s": round(segment.end_s - start_s, 3),
        "text": segment.text,
    }
