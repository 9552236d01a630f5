"""Audits a policy: how much it keeps by code mixing, language, duration and source, and whether code-switched speech is
kept less.

A filter that rejects code-switched speech more than other speech produces a corpus, and a student, with less of it. The
chunks of one recording tend to be kept or rejected together, so all intervals and tests take the recording as the unit
(linearised ratio estimates; Cochran, "Sampling Techniques", 1977, chapter 6). Sums are updated part by part, so memory
does not grow with the corpus, except by one set of sums per source folder.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.corpus.distinct import DistinctPart, distinct_parts
from k2d.corpus.statistics import quantile, tail
from k2d.corpus.sweep import salvaged_ms
from k2d.filtering.policy import Columns, Policy, thresholds
from k2d.schema import Batch
from k2d.steps import OnSteps, ignore_steps
from k2d.store import Lake
from k2d.wording import counted

Floats = npt.NDArray[np.float64]

# (name, upper end, included). Code-mixing index: 0 (monolingual) … 0.5; the same groups as in `k2d eval`.
MIXING: Final = (("none", 0.0), ("up to 0.1", 0.1), ("0.1 to 0.25", 0.25), ("over 0.25", 1.0))
LENGTHS: Final = (("up to 5 s", 5.0), ("5 to 15 s", 15.0), ("over 15 s", float("inf")))
LANGUAGES: Final = ("zh", "en", "zh-en", "other")
SOURCES_SHOWN: Final = 20  # the largest; chosen
BY_MIXING, BY_LANGUAGE, BY_LENGTH, BY_SOURCE = "code mixing", "language", "duration", "source"
MIXED: Final = (BY_LANGUAGE, "zh-en")
FEWEST_RECORDINGS: Final = 5  # chosen; with fewer, the variance between recordings is unknown, and nothing is tested


@dataclass(frozen=True, slots=True)
class AuditGroup:
    """How much of a group is kept, compared with the rest (everything outside of the group)."""

    by: str  # BY_MIXING …
    name: str
    recordings: int
    chunks: int
    chunks_kept: float  # a partly salvaged chunk counts by its share of kept seconds
    seconds: float
    seconds_kept: float
    share: float  # kept, of the seconds
    share_band: tuple[float, float]
    chunk_share: float
    chunk_share_band: tuple[float, float]
    behind: float | None  # share of the rest minus this share; None where there is no rest
    behind_band: tuple[float, float] | None
    p_value: float | None  # one-sided, of the hypothesis "not behind"; None where there are too few recordings


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit. Only code-switched groups get warnings, which all hold together with `confidence`."""

    policy: str
    confidence: float
    recordings: int
    seconds: float
    share: float
    groups: tuple[AuditGroup, ...]
    sources_left_out: int
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Audit":
        """The audit of a document that an API answered with."""
        return cls(**document | {"groups": tuple(AuditGroup(**group) for group in document["groups"])})


class _GroupSums:
    """Sums over recordings, and sums of products, for the variance of ratios."""

    def __init__(self, groups: int) -> None:
        self.recordings = 0  # of the corpus
        self.present = np.zeros(groups, np.int64)  # (groups,): recordings that have chunks in the group
        # rows: kept seconds, seconds, kept chunks, chunks of the group; then the same of the whole corpus
        self.total = np.zeros((8, groups))
        self.products = np.zeros((8, 8, groups))

    def add(self, values: Floats) -> None:
        """Add recordings: shape (recordings, 4, groups), where group 0 is the whole corpus."""
        both = np.concatenate([values, np.broadcast_to(values[:, :, :1], values.shape)], axis=1)
        self.recordings += len(values)
        self.present += (values[:, 3] > 0).sum(axis=0)
        self.total += both.sum(axis=0)
        self.products += np.einsum("rig,rjg->ijg", both, both)


def audit(
    lake: Lake,
    batches: Sequence[Batch],
    policy: Policy,
    *,
    confidence: float = 0.95,
    on_steps: OnSteps = ignore_steps,
) -> Audit:
    """Compare how much `policy` keeps of each group with how much it keeps of the rest.

        audit(lake, [lake.batches.get("lectures")], DEFAULT).warnings

    `on_steps` is called with parts of batches.

    Raises:
        StoreError
    """
    fixed = [("all", "all"), *((by, name) for by, names in _FIXED.items() for name in names)]
    sums = _GroupSums(len(fixed))
    sources: dict[str, _GroupSums] = {}
    for part in distinct_parts(lake, batches, on_steps=on_steps):
        values = _values(part, policy, len(fixed))
        sums.add(values)
        for source, rows in _by_source(part):
            sources.setdefault(source, _GroupSums(1)).add(values[rows][:, :, :1])
    return _audit_of(fixed, sums, sources, policy=policy, confidence=confidence)


_FIXED: Final = {
    BY_MIXING: tuple(name for name, _ in MIXING),
    BY_LANGUAGE: LANGUAGES,
    BY_LENGTH: tuple(name for name, _ in LENGTHS),
}


def _values(part: DistinctPart, policy: Policy, groups: int) -> Floats:
    """Kept seconds, seconds, kept chunks and chunks of each recording in each group; shape (recordings, 4, groups)."""
    ms = part.chunks["ms"].astype(np.float64)
    share = _kept_ms(part, policy) / np.maximum(ms, 1.0)
    amounts = np.stack([share * ms / 1000, ms / 1000, share, np.ones_like(ms)], axis=1)
    sizes = part.part.recordings.sizes[part.fresh]
    recording = np.repeat(np.arange(len(sizes)), sizes)
    values = np.zeros((len(sizes), 4, groups))
    everything = np.zeros(len(ms), np.int64)
    offset = 0
    for names, codes in zip((("all",), *_FIXED.values()), (everything, *_codes(part.chunks)), strict=True):
        np.add.at(values, (recording[:, None], np.arange(4)[None, :], (offset + codes)[:, None]), amounts)
        offset += len(names)
    return values


def _kept_ms(part: DistinctPart, policy: Policy) -> Floats:
    """The milliseconds kept of each chunk, shape (chunks,): the whole chunk or its salvaged segments."""
    least = thresholds(policy, part, alpha=policy.alpha)
    salvaged = salvaged_ms(part.segments, least, policy.alpha)
    return np.where(least.whole(policy.alpha), part.chunks["ms"], salvaged).astype(np.float64)


def _codes(chunks: Columns) -> tuple[npt.NDArray[np.int64], ...]:
    """The group of each chunk by code mixing, by language and by duration; shape (chunks,) each."""
    zh, en = chunks["zh_tokens"].astype(np.float64), chunks["en_tokens"].astype(np.float64)
    index = np.minimum(zh, en) / np.maximum(zh + en, 1)
    mixing = np.searchsorted([edge for _, edge in MIXING], index, side="left")
    language = np.select([(zh > 0) & (en > 0), zh > 0, en > 0], [2, 0, 1], default=3)
    length = np.searchsorted([edge for _, edge in LENGTHS], chunks["duration_s"], side="left")
    return mixing, language, length


def _by_source(part: DistinctPart) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """The source folders of a part (from the recordings' names), each with the indices of its recordings."""
    rows: dict[str, list[int]] = {}
    names = part.part.recordings.column("recording")
    for row, name in enumerate(name for name, fresh in zip(names, part.fresh.tolist(), strict=True) if fresh):
        rows.setdefault(name.replace("\\", "/").rpartition("/")[0] or ".", []).append(row)
    for source, recordings in rows.items():
        yield source, np.array(recordings)


# ---- estimates and tests ------------------------------------------------------------------------------------------


def _audit_of(
    fixed: Sequence[tuple[str, str]],
    sums: _GroupSums,
    sources: dict[str, _GroupSums],
    *,
    policy: Policy,
    confidence: float,
) -> Audit:
    groups = [_group(*fixed[at], sums, at, confidence) for at in range(1, len(fixed)) if sums.present[at]]
    most = sorted(sources, key=lambda source: -sources[source].total[1, 0])[:SOURCES_SHOWN]
    groups += [_group(BY_SOURCE, source, _of_source(sources[source], sums), 0, confidence) for source in most]
    kept, total = sums.total[0, 0], sums.total[1, 0]
    return Audit(
        policy=policy.name,
        confidence=confidence,
        recordings=sums.recordings,
        seconds=round(float(total), 3),
        share=round(float(kept / total), 4) if total else 0.0,
        groups=tuple(groups),
        sources_left_out=len(sources) - len(most),
        warnings=tuple(map(_warning, _warned(groups, confidence))),
    )


def _of_source(source: _GroupSums, whole: _GroupSums) -> _GroupSums:
    """The sums of one source beside those of the whole corpus.

    A recording is in one source only, so its product with itself in the corpus is its product within the source.
    """
    sums = _GroupSums(1)
    sums.recordings, sums.present = whole.recordings, source.present
    sums.total = np.concatenate([source.total[:4], whole.total[4:, :1]])
    sums.products = np.concatenate(
        [
            np.concatenate([source.products[:4, :4], source.products[:4, :4]], axis=1),
            np.concatenate([source.products[:4, :4], whole.products[4:, 4:, :1]], axis=1),
        ]
    )
    return sums


def _group(by: str, name: str, sums: _GroupSums, at: int, confidence: float) -> AuditGroup:
    kept, seconds, chunks_kept, chunks = (float(value) for value in sums.total[:4, at])
    share, chunk_share = kept / seconds, chunks_kept / chunks
    products, recordings, present = sums.products[:, :, at], sums.recordings, int(sums.present[at])
    slopes = np.array([1.0, -share, 0, 0, 0, 0, 0, 0]) / seconds
    chunk_slopes = np.array([0, 0, 1.0, -chunk_share, 0, 0, 0, 0]) / chunks
    behind, behind_band, p_value = _behind(share, slopes, sums.total[:, at], products, present, recordings, confidence)
    return AuditGroup(
        by=by,
        name=name,
        recordings=present,
        chunks=round(chunks),
        chunks_kept=round(chunks_kept, 2),
        seconds=round(seconds, 3),
        seconds_kept=round(kept, 3),
        share=round(share, 4),
        share_band=_wilson(share, _variance(slopes, products, present), chunks, present, confidence),
        chunk_share=round(chunk_share, 4),
        chunk_share_band=_wilson(chunk_share, _variance(chunk_slopes, products, present), chunks, present, confidence),
        behind=behind,
        behind_band=behind_band,
        p_value=p_value,
    )


def _behind(
    share: float, slopes: Floats, total: Floats, products: Floats, present: int, recordings: int, confidence: float
) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """How far a group's share is below the rest's, the confidence interval of that, and the one-sided p-value."""
    rest_s = float(total[5] - total[1])
    if rest_s <= 1e-6:
        return None, None, None
    rest = float(total[4] - total[0]) / rest_s
    behind = rest - share
    # the rest is the whole corpus without the group
    rest_slopes = np.array([-1.0, rest, 0, 0, 1.0, -rest, 0, 0]) / rest_s
    variance = _variance(rest_slopes - slopes, products, recordings)
    if min(present, recordings) < FEWEST_RECORDINGS:
        return round(behind, 4), None, None
    deviation = max(float(np.sqrt(variance)), 1e-9)
    reach = quantile(0.5 + confidence / 2, present - 1) * deviation
    p_value = tail(behind / deviation, present - 1)
    return round(behind, 4), (round(behind - reach, 4), round(behind + reach, 4)), round(p_value, 6)


def _variance(slopes: Floats, products: Floats, recordings: int) -> float:
    """The variance of a ratio: of the sum over recordings of its linearised terms `slopes @ values`."""
    return max(0.0, float(slopes @ products @ slopes)) * recordings / max(1, recordings - 1)


def _wilson(share: float, variance: float, chunks: float, recordings: int, confidence: float) -> tuple[float, float]:
    """Wilson's confidence interval at the effective sample size.

    The effective sample size is the number of independent chunks whose share would have this variance, at most
    `chunks`.
    """
    z = quantile(0.5 + confidence / 2, recordings - 1)
    size = min(share * (1 - share) / variance, chunks) if variance > 0 else chunks
    if recordings < FEWEST_RECORDINGS:  # the variance is unknown: each recording counts as one chunk
        size = min(size, recordings)
    size = max(size, 1.0)
    middle, scale = (share + z * z / (2 * size)), 1 + z * z / size
    reach = z * np.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    low, high = float((middle - reach) / scale), float((middle + reach) / scale)
    return round(max(0.0, low), 4), round(min(1.0, high), 4)


def warned(report: Audit) -> list[AuditGroup]:
    """The groups that `report` warns of, those it is surest of first."""
    return list(_warned(report.groups, report.confidence))


def _warned(groups: Iterable[AuditGroup], confidence: float) -> Iterator[AuditGroup]:
    """Test the code-switched groups by Holm's procedure, so that all warnings hold together with `confidence`."""
    mixed = [g for g in groups if (g.by, g.name) == MIXED or (g.by == BY_MIXING and g.name != MIXING[0][0])]
    tested = sorted((g for g in mixed if g.p_value is not None), key=lambda g: float(g.p_value or 0.0))
    for place, group in enumerate(tested):
        if float(group.p_value or 0.0) > (1 - confidence) / (len(tested) - place):
            return
        yield group


def _warning(group: AuditGroup) -> str:
    low, high = group.behind_band or (0.0, 0.0)
    return (
        f"code-switched speech is filtered out faster: of {group.by} {group.name} {group.share:.1%} of the seconds "
        f"are kept, {100 * (group.behind or 0):.1f} points less than of the rest ({100 * low:.1f} to "
        f"{100 * high:.1f}; {_shown(group.p_value)} over {counted(group.recordings, 'recording')})"
    )


def _shown(p_value: float | None) -> str:
    return f"p = {p_value:.2g}" if p_value else "p < 0.000001"
