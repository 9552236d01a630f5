"""Reviews: what people said about segments of labels, and the draws in which they were asked."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final

from k2d.errors import BadRequest, Conflict, NotFound
from k2d.keys import chunk_id, segment_id
from k2d.store.base import LakePart, safe_name
from k2d.store.parquet import dumps

REVIEW_ID: Final = re.compile(r"[0-9A-Za-z_-]{8,64}")
DRAW_ID: Final = re.compile(r"d_[0-9a-f]{16}")
LONGEST_TEXT: Final = 10_000  # characters of a reference; chosen: thirty seconds of speech have a few hundred


class ReviewVerdict(StrEnum):
    """What a reviewer says of a segment's label."""

    RIGHT = "right"  # the label is what is said
    TEXT = "text"  # `reference` is what is said
    NOTHING = "nothing"  # nothing is said there
    WRONG = "wrong"  # the label is wrong; what is said is not written down
    UNKNOWN = "unknown"  # the reviewer cannot tell
    UNDONE = "undone"  # takes the reviewer's earlier review back


class ReviewOrder(StrEnum):
    """How the segments of a review were chosen."""

    RANDOM = "random"  # drawn with known probabilities: the sample that calibration needs
    VALUE = "value"  # those that teach most: near the policy's boundary, and unlike one another; proves nothing


@dataclass(frozen=True, slots=True)
class Review:
    """One statement of one reviewer about one segment of a label. Never changed; a later one of theirs replaces it."""

    id: str  # chosen by whoever sends it, so that sending it again stores nothing twice
    label_key: str  # the label, chunk and segment of it
    chunk: int
    segment: int
    label: str  # the segment's text, as it was judged
    verdict: ReviewVerdict
    reference: str | None  # what is said there; None where the verdict does not tell
    reviewer: str
    at: str  # ISO 8601, UTC, microseconds; later than the reviewer's other reviews of the segment
    draw: str | None = None  # in which the segment was shown
    seconds: float | None = None  # from hearing to answering

    @property
    def place(self) -> tuple[str, int, int]:
        """Label, chunk and segment."""
        return self.label_key, self.chunk, self.segment


class Reviews(LakePart):
    """Reviews: reviews/ab/<label_key>/<chunk>.<segment>-<id>.json, one file each, so that an object store takes them.

    Labels are keyed by what they were made of, so a review holds in every batch with the label, whatever validated it.

        lake.reviews.put(review)
        lake.reviews.of_labels([label_key])
    """

    def put(self, review: Review) -> Review:
        """Store a review; returns it with its time. If it is there already, returns the stored one.

        Raises:
            BadRequest: the id or the reference has an impossible form.
            Conflict: the id is another review's.
            StoreError
        """
        if not REVIEW_ID.fullmatch(review.id):
            raise BadRequest(f"not an id of a review: {review.id[:100]!r}", hint="8 to 64 letters, digits, - and _")
        if len(review.reference or "") > LONGEST_TEXT:
            raise BadRequest(f"the reference has {len(review.reference or '')} characters; {LONGEST_TEXT} are allowed")
        path = _path(review)
        earlier = [own for own in self._of_segment(review.place) if own.reviewer == review.reviewer]
        if same := next((own for own in earlier if own.id == review.id), None):
            return _same(same, review)
        stored = _dated(review, earlier)
        if self.files.create(path, dumps(stored)):
            return stored
        return _same(self._read(path), review)

    def of_labels(self, label_keys: Iterable[str]) -> list[Review]:
        """All reviews of these labels, also those that were replaced or undone; by segment, oldest first.

        Raises:
            StoreError
        """
        read = self.files.many(self._read_if_there, self.paths_of(label_keys))
        reviews = [review for review in read if review is not None]
        return sorted(reviews, key=lambda review: (*review.place, review.at, review.id))

    def label_keys(self) -> list[str]:
        """The keys of all labels that have reviews, sorted.

        Raises:
            StoreError
        """
        folders = self.files.many(lambda name: self.files.folders(f"reviews/{name}"), self.files.folders("reviews"))
        return sorted(key for names in folders for key in names)

    def paths_of(self, label_keys: Iterable[str]) -> list[str]:
        """The files of all reviews of these labels, in the order of the labels.

        Raises:
            StoreError
        """
        return [path for found in self.files.many(self._paths, dict.fromkeys(label_keys)) for path in found]

    def remove(self, label_key: str) -> int:
        """Remove all reviews of a label; returns how many there were.

        Raises:
            StoreError
        """
        paths = self._paths(label_key)
        self.files.remove_folder(_folder(label_key))
        return len(paths)

    def _paths(self, label_key: str) -> list[str]:
        return self.files.listing(_folder(label_key))

    def _of_segment(self, place: tuple[str, int, int]) -> list[Review]:
        prefix = f"{_folder(place[0])}/{place[1]:05d}.{place[2]:03d}-"
        paths = [path for path in self._paths(place[0]) if path.startswith(prefix)]
        return [review for path in paths if (review := self._read_if_there(path)) is not None]

    def _read(self, path: str) -> Review:
        review: Review = self.read_document(path, Review)
        return review

    def _read_if_there(self, path: str) -> Review | None:
        try:
            return self._read(path)
        except NotFound:  # removed since it was listed
            return None


class ReviewDraws(LakePart):
    """Draws: draws/<id>.json, which segments were drawn for review, how, and in which order. They never change.

    A draw holds no text: rows are made of the facts whenever they are shown.

        lake.draws.put("d_0123456789abcdef", {"head": head, "segments": segments})
    """

    def put(self, draw_id: str, document: dict[str, Any]) -> bool:
        """Store a draw; False if it is there already.

        Raises:
            StoreError
        """
        return self.files.create(_draw_path(draw_id), dumps(document))

    def get(self, draw_id: str) -> dict[str, Any]:
        """Read a draw.

        Raises:
            NotFound: there is none.
            StoreError
        """
        try:
            document: dict[str, Any] = self.read_document(_draw_path(draw_id), dict[str, Any])
        except NotFound as error:
            raise NotFound(
                f"no draw is called {draw_id[:100]!r}",
                hint="`k2d reviews draws` lists them; `k2d review` draws one",
                draw=draw_id[:100],
            ) from error
        return document

    def ids(self) -> list[str]:
        """The ids of all draws.

        Raises:
            StoreError
        """
        names = (path.rpartition("/")[2].removesuffix(".json") for path in self.files.listing("draws"))
        return [name for name in names if DRAW_ID.fullmatch(name)]

    def put_calibration(self, draw_id: str, calibration_id: str, document: dict[str, Any]) -> None:
        """Store what a calibration on a draw's reviews found: draws/calibrations/<draw>/<id>.json.

        Raises:
            StoreError
        """
        self.write_document(_calibration_path(draw_id, calibration_id), document)

    def calibration(self, draw_id: str, calibration_id: str) -> dict[str, Any]:
        """Read a calibration.

        Raises:
            NotFound, StoreError
        """
        try:
            document: dict[str, Any] = self.read_document(_calibration_path(draw_id, calibration_id), dict[str, Any])
        except NotFound as error:
            raise NotFound(
                f"draw {draw_id[:100]!r} has no calibration {calibration_id[:100]!r}",
                hint="the page of the draw lists its calibrations",
                calibration=calibration_id[:100],
            ) from error
        return document

    def calibrations(self, draw_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The calibrations of a draw with their ids, newest first.

        Raises:
            StoreError
        """
        names = [path.rpartition("/")[2].removesuffix(".json") for path in self._calibration_paths(draw_id)]
        documents = self.files.many(partial(self.calibration, draw_id), names)
        found = sorted(zip(names, documents, strict=True), key=lambda item: str(item[1].get("at")), reverse=True)
        yield from found

    def _calibration_paths(self, draw_id: str) -> list[str]:
        return self.files.listing(f"draws/calibrations/{safe_name(draw_id)}")


def current(reviews: Iterable[Review]) -> list[Review]:
    """The reviews that count: each reviewer's newest of a segment, unless it takes the earlier ones back.

    current([first, undone, second]) == [second]
    """
    newest: dict[tuple[tuple[str, int, int], str], Review] = {}
    for review in reviews:
        key = (review.place, review.reviewer)
        if key not in newest or (newest[key].at, newest[key].id) < (review.at, review.id):
            newest[key] = review
    return [review for review in newest.values() if review.verdict is not ReviewVerdict.UNDONE]


def _same(stored: Review, review: Review) -> Review:
    """The stored review, if it says the same.

    Raises:
        Conflict: it does not.
    """
    if _content(stored) != _content(review):
        raise Conflict(f"the id {review.id} is another review's", hint="every review has an id of its own")
    return stored


def _content(review: Review) -> tuple[object, ...]:
    return review.place, review.reviewer, review.verdict, review.reference


def _dated(review: Review, earlier: Sequence[Review]) -> Review:
    """The review with its time: now, but after the reviewer's earlier ones, whatever this machine's clock says."""
    moment = datetime.fromisoformat(review.at) if review.at else datetime.now(UTC)
    latest = max((datetime.fromisoformat(own.at) for own in earlier), default=None)
    if latest is not None and latest >= moment:
        moment = latest + timedelta(microseconds=1)
    at = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return replace(review, at=at)


def _folder(label_key: str) -> str:
    return f"reviews/{safe_name(label_key)[:2]}/{label_key}"


def _path(review: Review) -> str:
    return f"{_folder(review.label_key)}/{review.chunk:05d}.{review.segment:03d}-{review.id}.json"


def review_segment(review: Review) -> str:
    """The segment of a review, as messages and lists name it: "<label key>-00003.002"."""
    return segment_id(chunk_id(review.label_key, review.chunk), review.segment)


def _draw_path(draw_id: str) -> str:
    return f"draws/{safe_name(draw_id)}.json"


def _calibration_path(draw_id: str, calibration_id: str) -> str:
    return f"draws/calibrations/{safe_name(draw_id)}/{safe_name(calibration_id)}.json"
