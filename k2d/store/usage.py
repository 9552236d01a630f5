"""How much of the disk each kind of data in a lake takes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from k2d.store.files import TEMP_SUFFIX, Files

UNFINISHED: Final = "unfinished writes"
OTHER: Final = "other files"
# the first that a path matches is its kind
KINDS: Final = (
    (r".*" + re.escape(TEMP_SUFFIX), UNFINISHED),
    (r"uploads/.*", "uploads"),
    (r"partial/.*", "uploads that broke off"),
    (r"damaged/.*", "damaged files that were set aside"),
    (r"(redis|up)/.*", "services of this machine"),
    (r"labels/.*", "labels, with audio"),
    (r"journals/.*", "answers for unfinished recordings"),
    (r"(hypotheses|opinions)/.*", "hypotheses"),
    (r"facts/.*", "facts"),
    (r"examinations/.*", "examinations"),
    (r"(probes|listeners)/.*", "probes, and examinations of version 0.1"),
    (r"batches/[^/]+/index/.*", "indexes of batches: a cache"),
    (r"(batches|names|recent|drafts|drafts-by-name)/.*", "batches and results"),
    (r"(reviews|draws)/.*", "reviews"),
    (r"datasets/.*", "datasets"),
    (r"runs/.*", "published runs"),
    (r"(access|audit-log|checks|heartbeats)/.*|store\.json", "keys, log, checks"),
)


@dataclass(frozen=True, slots=True)
class KindUsage:
    """The files of one kind."""

    kind: str
    files: int
    bytes: int


def usage(files: Files, *, progress: Callable[[int], None] = lambda _: None) -> list[KindUsage]:
    """Add up all files of a lake by kind, largest first. Lists everything: a minute for a million files.

    `progress` is called with the number of files so far.
    """
    sums: dict[str, list[int]] = {}
    patterns = [(re.compile(pattern), kind) for pattern, kind in KINDS]
    for number, (path, size) in enumerate(files.sizes(""), start=1):
        kind = next((kind for pattern, kind in patterns if pattern.fullmatch(path)), OTHER)
        entry = sums.setdefault(kind, [0, 0])
        entry[0] += 1
        entry[1] += size
        if number % 10_000 == 0:
            progress(number)
    return sorted((KindUsage(kind, *entry) for kind, entry in sums.items()), key=lambda row: -row.bytes)
