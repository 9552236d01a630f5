"""What people said of segments, as it enters a dataset: their texts in place of labels, and segments left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import pyarrow as pa

from k2d.corpus.calibration.desk import labels_of_batch
from k2d.corpus.calibration.second import text_of
from k2d.datasets.scripts import RAW_TEXT, with_raw_text
from k2d.errors import BadRequest
from k2d.keys import digest
from k2d.schema import Batch, join_text
from k2d.store import Lake
from k2d.store.manifest import DatasetReviews
from k2d.store.reviews import Review, current
from k2d.text.reading import read

ORIGIN: Final = "review"  # of a segment whose text a person has confirmed or written
ORIGINS: Final = "origins"  # column: where the text of each segment comes from

Place = tuple[int, int]  # (chunk, segment) of a label


class ReviewedSegment(NamedTuple):
    """What the reviewers of a segment agree on. It is also a line of a stored plan."""

    chunk: int
    segment: int
    text: str | None  # None: nothing is said there, they disagree, or nobody wrote down what is said
    is_corrected: bool  # the text is not the label
    is_disputed: bool
    ids: tuple[str, ...]  # of the reviews


@dataclass(frozen=True)
class ReviewedTexts:
    """The reviewed segments of some batches, by label key; labels without reviews have no entry."""

    segments: Mapping[str, Sequence[ReviewedSegment]]

    @cached_property
    def by_place(self) -> dict[str, dict[Place, str | None]]:
        """The texts by label key and place; None: to be left out."""
        return {
            key: {(own.chunk, own.segment): own.text for own in segments} for key, segments in self.segments.items()
        }

    @property
    def hash(self) -> str:
        """A hash of the reviews and of what they say, 32 hex characters."""
        return digest("reviews", [[key, [list(own) for own in self.segments[key]]] for key in sorted(self.segments)])

    def described(self) -> DatasetReviews:
        """For the manifest."""
        every = [own for segments in self.segments.values() for own in segments]
        with_text = [own for own in every if own.text is not None]
        return DatasetReviews(
            segments=len(every),
            confirmed=sum(not own.is_corrected for own in with_text),
            corrected=sum(own.is_corrected for own in with_text),
            left_out=len(every) - len(with_text),
            disputed=sum(own.is_disputed for own in every),
            hash=self.hash,
        )


def reviewed_texts(lake: Lake, batches: Iterable[Batch]) -> ReviewedTexts:
    """Read what was reviewed of these batches.

        reviewed_texts(lake, [lake.batches.get("lectures")]).described().corrected

    Raises:
        BadRequest: nothing was.
        StoreError
    """
    keys = sorted({key for batch in batches for key in labels_of_batch(lake, batch)})
    read_segments = {key: segments for key in keys if (segments := reviewed_segments(lake, key))}
    if not read_segments:
        raise BadRequest("no segment of these batches is reviewed", hint="`k2d review` draws segments to review")
    return ReviewedTexts(read_segments)


def reviewed_segments(lake: Lake, label_key: str) -> list[ReviewedSegment]:
    """What people say of the segments of one label, in order."""
    by_place: dict[Place, list[Review]] = {}
    for review in current(lake.reviews.of_labels([label_key])):
        by_place.setdefault((review.chunk, review.segment), []).append(review)
    return [_agreed(place, reviews) for place, reviews in sorted(by_place.items())]


def _agreed(place: Place, reviews: Sequence[Review]) -> ReviewedSegment:
    said = [text_of(review) for review in reviews]
    known = [text for text in said if text is not None]
    is_disputed = len(known) > 0 and (len({read(text).tokens for text in known}) > 1 or len(known) < len(said))
    text = known[-1] if known and known[-1] and not is_disputed else None  # the newest spelling of what all say
    is_corrected = text is not None and read(text).tokens != read(reviews[-1].label).tokens
    return ReviewedSegment(*place, text, is_corrected, is_disputed, tuple(sorted(review.id for review in reviews)))


def with_reviewed_columns(schema: pa.Schema) -> pa.Schema:
    """The schema of rows with reviewed texts: `raw_text` after `text`, `origins` at the end."""
    return with_raw_text(schema).append(pa.field(ORIGINS, pa.list_(pa.string())))


def with_reviewed(row: dict[str, Any], texts: Sequence[str | None], origins: Sequence[str]) -> dict[str, Any]:
    """A row with reviewed texts (None: the label stays), what the models wrote in `raw_text`, and `origins`."""
    segments = [
        segment | {"text": segment["text"] if text is None else _spaced(text, segment["text"])}
        for segment, text in zip(row["segments"], texts, strict=True)
    ]
    return row | {
        "text": join_text(segment["text"] for segment in segments),
        RAW_TEXT: row["text"],
        "segments": segments,
        ORIGINS: list(origins),
    }


def _spaced(text: str, label: str) -> str:
    """The text with a space before it where segments that are joined need one, as Whisper writes them."""
    return f" {text}" if label.startswith(" ") or (text[0].isascii() and text[0].isalnum()) else text
