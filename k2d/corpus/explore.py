"""What a policy keeps at every α, for a page on which people move α: computed once for each part, then remembered.

    explorer = Explorer(lake)
    curve = explorer.curve(explorer.parts([batch]), DEFAULT)
    curve.kept_ms[300]  # milliseconds kept whole at α = 0.300

A complete part never changes, so what was computed of it under some rules stays right; α is none of them.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import numpy as np
import numpy.typing as npt

from k2d.corpus.audit import Audit, audit
from k2d.corpus.index import Part, parts
from k2d.corpus.sweep import binned, first_kept, in_threads, salvage_curve
from k2d.corpus.views import EXACT_SALVAGE
from k2d.filtering.policy import Policy, least_alpha, thresholds
from k2d.filtering.policy.rules import broken_rules
from k2d.schema import Batch, Metric, Reason
from k2d.store import Lake

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]
_T = TypeVar("_T")

STEPS: Final = 1000  # of α between 0 and 1
GRID: Final = np.round(np.arange(STEPS + 1) / STEPS, 3)  # (alphas,)
MEMORY_BYTES: Final = 256 * 1024**2  # of remembered arrays; chosen: two policies over ten million chunks


@dataclass(frozen=True, slots=True)
class RuleCount:
    """What a rule rejects, whatever α is."""

    chunks: int
    ms: int


@dataclass(slots=True)
class AlphaCurve:
    """What a policy's rules keep at each α of GRID."""

    chunks: int  # all chunks
    ms: int  # of all chunks
    kept: Ints  # (alphas,): chunks kept whole
    kept_ms: Ints  # (alphas,): of these
    salvaged_ms: Ints  # (alphas,): of segments of other chunks
    sample: float = 1.0  # share of the chunks in which salvage was counted; below 1 it is an estimate from these
    rules: dict[Reason, RuleCount] = field(default_factory=dict)


class Explorer:
    """Answers questions about all chunks of some batches under one policy after another. For many threads."""

    def __init__(self, lake: Lake, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self.lake = lake
        self._memory = _Memory(memory_bytes)

    def parts(self, batches: Sequence[Batch]) -> list[Part]:
        """The parts of all these batches, in order."""
        return [part for batch in batches for part in parts(self.lake, batch.id)]

    def curve(self, all_parts: Sequence[Part], policy: Policy) -> AlphaCurve:
        """Compute what the policy's rules keep at each α of GRID.

        Chunks are counted exactly; salvage is estimated from a sample of the parts where `views.preview` does so.
        """
        curves = in_threads(lambda part: self._part_curve(part, policy), all_parts)
        total = AlphaCurve(0, 0, kept=_zeros(), kept_ms=_zeros(), salvaged_ms=_zeros())
        for curve in curves:
            total.chunks += curve.chunks
            total.ms += curve.ms
            total.kept += curve.kept
            total.kept_ms += curve.kept_ms
            for reason, count in curve.rules.items():
                before = total.rules.get(reason, RuleCount(0, 0))
                total.rules[reason] = RuleCount(before.chunks + count.chunks, before.ms + count.ms)
        if policy.salvage:
            self._add_salvage(total, all_parts, policy)
        return total

    def least(self, part: Part, policy: Policy) -> Floats:
        """The least α that keeps each chunk of a part whole, shape (chunks,); infinite where a rule rejects it."""
        return self._remembered(part, "least", policy, lambda: least_alpha(policy, part.chunks))

    def audit(self, batches: Sequence[Batch], policy: Policy) -> Audit:
        """Audit a policy (`k2d.corpus.audit`) at its α."""
        return self.remembered_of_all(self.parts(batches), "audit", policy, lambda: audit(self.lake, batches, policy))

    def remembered_of_all(self, all_parts: Sequence[Part], what: str, policy: Policy, make: Callable[[], _T]) -> _T:
        """What `make` returns about a policy at its α and all these parts; remembered if they are complete."""
        if not all(part.complete for part in all_parts):
            return make()
        return self._memory.get((what, policy.key, *(part.stem for part in all_parts)), make)

    def _part_curve(self, part: Part, policy: Policy) -> AlphaCurve:
        def make() -> AlphaCurve:
            columns, ms = part.chunks, part.chunks["ms"]
            first = first_kept(self.least(part, policy), GRID)
            broken = {reason: np.flatnonzero(rule) for reason, rule in broken_rules(policy, columns).items()}
            return AlphaCurve(
                chunks=len(ms),
                ms=int(ms.sum(dtype=np.int64)),
                kept=np.cumsum(binned(first, len(GRID) + 1))[:-1],
                kept_ms=np.cumsum(binned(first, len(GRID) + 1, ms))[:-1],
                salvaged_ms=np.zeros(0, np.int64),
                rules={r: RuleCount(len(rows), int(ms[rows].sum(dtype=np.int64))) for r, rows in broken.items()},
            )

        return self._remembered(part, "curve", policy, make)

    def _add_salvage(self, total: AlphaCurve, all_parts: Sequence[Part], policy: Policy) -> None:
        step = max(1, -(-total.chunks // EXACT_SALVAGE))
        sample = all_parts[:: min(step, max(1, len(all_parts)))]
        counted = in_threads(lambda part: (self._part_salvage(part, policy), part.rows()), sample)
        seen = sum(rows for _, rows in counted)
        scale = 1.0 if len(sample) == len(all_parts) else total.chunks / max(1, seen)
        total.sample = seen / total.chunks if total.chunks else 1.0
        salvaged = sum((ms for ms, _ in counted), _zeros())
        total.salvaged_ms = np.rint(scale * salvaged).astype(np.int64)

    def _part_salvage(self, part: Part, policy: Policy) -> Ints:
        def make() -> Ints:
            return salvage_curve(part.segments, thresholds(policy, part), GRID)

        return self._remembered(part, "salvage", policy, make)

    def _remembered(self, part: Part, what: str, policy: Policy, make: Callable[[], _T]) -> _T:
        return self._memory.get((part.stem, what, rules_key(policy)), make) if part.complete else make()


def rules_key(policy: Policy) -> str:
    """A hash of what a policy compares with α and of its rules, without α itself and its names."""
    return policy.model_copy(update={"alpha": 0.0, "name": "rules", "claim": None}).key


def with_salvage(policy: Policy, *, salvage: bool) -> Policy:
    """The policy with salvage on or off; always off where the metric is a distance, which only whole chunks have."""
    wanted = salvage and policy.metric is Metric.EVIDENCE
    if wanted == policy.salvage:
        return policy
    return policy.model_copy(update={"salvage": wanted, "name": "custom", "claim": None})


def _zeros() -> Ints:
    return np.zeros(len(GRID), np.int64)


class _Memory:
    """The results asked for last, up to some bytes of arrays. What several threads ask for at once is computed once."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._results: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return cast(_T, self._results[key][0])
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._results:
                    return cast(_T, self._results[key][0])
            try:
                result = make()
                self._keep(key, result)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return result

    def _keep(self, key: Hashable, result: Any) -> None:
        size = _bytes(result)
        with self._lock:
            self._results[key] = (result, size)
            self._bytes += size
            while self._bytes > self._most_bytes and self._results:
                self._bytes -= self._results.popitem(last=False)[1][1]


def _bytes(result: Any) -> int:
    if isinstance(result, np.ndarray):
        return result.nbytes
    if isinstance(result, AlphaCurve):
        return result.kept.nbytes + result.kept_ms.nbytes + 1000
    return 100_000  # an audit, or some chunks with their texts
