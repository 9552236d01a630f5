"""What validators made of the same chunks, gathered from the facts of one or more batches."""

from collections.abc import Iterator, Sequence

import numpy as np

from k2d.corpus.independence import Hearing
from k2d.filtering.evidence import weigh
from k2d.keys import digest
from k2d.schema import ChunkFacts, Hypothesis, Segment
from k2d.store import Lake

# Whose weights are the teacher's: they share what the teacher does not know.
_TEACHERS = ("perturbed", "rescue")


def gather(
    lake: Lake, batches: Sequence[str], *, most: int
) -> tuple[list[Hearing], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Line up what validators said of the same labels, and the teacher's confidence in them, shape (chunks,).

    Batches over the same recordings with other sets of validators add their validators. Recordings are taken in an order that is
    random and always the same, until `most` chunks are there; chunks without a sound in their label are left out.

    Raises:
        NotFound: no such batch.
        StoreError
    """
    rows: dict[str, dict[int, tuple[float, float, int]]] = {}  # by validator, by row: disagreement, score, passes
    confidence: list[float] = []
    for segments, hypotheses in _chunks(lake, batches):
        if len(confidence) >= most:
            break
        by_listener: dict[str, list[Hypothesis]] = {}
        for one in hypotheses:
            by_listener.setdefault(one.validator, []).append(one)
        weighed = [(name, said, weigh(segments, said).evidence) for name, said in by_listener.items()]
        if not weighed[0][2].units:
            continue
        for name, said, evidence in weighed:
            score = evidence.score if any(one.scores for one in said) else np.nan
            passes = sum(1 + (bool(one.scores) and not one.is_phonemes) for one in said)
            rows.setdefault(name, {})[len(confidence)] = (evidence.disagreement_middle, score, passes)
        confidence.append(weighed[0][2].avg_logprob)
    return [_hearing(name, said, len(confidence)) for name, said in rows.items()], np.array(confidence)


def _chunks(lake: Lake, batches: Sequence[str]) -> Iterator[tuple[tuple[Segment, ...], list[Hypothesis]]]:
    """Each labelled chunk once, with what all sets of validators said of it."""
    facts: dict[str, set[str]] = {}
    for batch in dict.fromkeys(batches):
        for result in lake.batches.results(lake.batches.get(batch).id):
            if result.label_key and result.facts_key:
                facts.setdefault(result.label_key, set()).add(result.facts_key)
    for label_key in sorted(facts, key=digest):
        found: dict[int, list[ChunkFacts]] = {}
        for key in sorted(facts[label_key]):
            for row in lake.facts.read(key):
                found.setdefault(row.index, []).append(row)
        for rows in found.values():
            said = {(one.validator, one.perturbation): one for row in rows for one in row.hypotheses}
            yield rows[0].segments, list(said.values())


def _hearing(name: str, said: dict[int, tuple[float, float, int]], chunks: int) -> Hearing:
    disagreement, score = np.full(chunks, np.nan), np.full(chunks, np.nan)
    for row, (apart, likely, _) in said.items():
        disagreement[row], score[row] = apart, likely
    kind = name.partition(":")[0]
    family = "teacher" if kind in _TEACHERS else name
    return Hearing(name, family, disagreement, score, sum(passes for _, _, passes in said.values()))
