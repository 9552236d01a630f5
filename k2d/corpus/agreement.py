"""Collects the hypotheses of several validators for the same labels, from the facts of one or more batches."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.corpus.independence import Observations, ValidatorsCompared, compare_validators, phi
from k2d.corpus.index import results
from k2d.errors import BadRequest
from k2d.filtering.evidence import weigh
from k2d.keys import digest
from k2d.schema import ChunkFacts, Hypothesis, Segment
from k2d.store import Lake

# Kinds of validators that run the teacher's weights, and therefore share its errors. "rescue" is what version 0.1
# called "second-decode".
_TEACHERS: Final = ("perturbed", "second-decode", "rescue")

_Row = tuple[float, float, int]  # disagreement, forced log-probability, passes


def gather(lake: Lake, batches: Sequence[str], *, most: int) -> tuple[list[Observations], npt.NDArray[np.float64]]:
    """Compare every label with each validator's hypotheses.

        observations, confidence = gather(lake, ["lectures"], most=20_000)

    Returns the observations of each validator, and the teacher's mean log-probability of each label, shape (chunks,).
    Batches over the same recordings with other validators are combined. Recordings are taken in a pseudo-random order,
    always the same, until there are `most` chunks; chunks whose label has no phoneme are left out.

    Raises:
        NotFound: no such batch.
        StoreError
    """
    rows: dict[str, dict[int, _Row]] = {}  # by validator, by row
    confidence: list[float] = []
    for segments, hypotheses in _chunks(lake, batches):
        if len(confidence) >= most:
            break
        by_validator: dict[str, list[Hypothesis]] = {}
        for hypothesis in hypotheses:
            by_validator.setdefault(hypothesis.validator, []).append(hypothesis)
        weighed = [(name, values, weigh(segments, values).evidence) for name, values in by_validator.items()]
        if not weighed[0][2].phonemes:
            continue
        for name, values, evidence in weighed:
            forced = evidence.forced_logprob if any(value.forced_logprobs for value in values) else np.nan
            passes = sum(1 + (bool(value.forced_logprobs) and not value.is_phonemes) for value in values)
            rows.setdefault(name, {})[len(confidence)] = (evidence.disagreement_middle, forced, passes)
        confidence.append(weighed[0][2].avg_logprob)
    return [_observations(name, by_row, len(confidence)) for name, by_row in rows.items()], np.array(confidence)


def compare(lake: Lake, batches: Sequence[str], *, most: int) -> ValidatorsCompared:
    """Compare the validators of the same labels, without references.

        compare(lake, ["lectures"], most=20_000).validators[0].name

    Raises:
        NotFound: no such batch.
        BadRequest: no label in the batches has been validated.
        StoreError
    """
    observations, confidence = gather(lake, batches, most=most)
    if not observations:
        raise BadRequest("no label in these batches has been validated", hint="`k2d status` says how far a batch is")
    rows = compare_validators(observations, confidence)
    places = {row.name: place for place, row in enumerate(rows)}
    observations.sort(key=lambda item: places[item.name])
    correlations = [(a.name, b.name, phi(a, b)) for a, b in combinations(observations, 2)]
    return ValidatorsCompared(len(confidence), rows, correlations)


def _chunks(lake: Lake, batches: Sequence[str]) -> Iterator[tuple[tuple[Segment, ...], list[Hypothesis]]]:
    """Iterate over the labeled chunks, each once, with the hypotheses of all validators."""
    facts: dict[str, set[str]] = {}
    for batch in dict.fromkeys(batches):
        for result in results(lake, lake.batches.get(batch)):
            if result.label_key and result.facts_key:
                facts.setdefault(result.label_key, set()).add(result.facts_key)
    for label_key in sorted(facts, key=digest):
        by_index: dict[int, list[ChunkFacts]] = {}
        for key in sorted(facts[label_key]):
            for row in lake.facts.read(key):
                by_index.setdefault(row.index, []).append(row)
        for rows in by_index.values():
            hypotheses = {(value.validator, value.perturbation): value for row in rows for value in row.hypotheses}
            yield rows[0].segments, list(hypotheses.values())


def _observations(name: str, rows: dict[int, _Row], chunks: int) -> Observations:
    disagreement, forced = np.full(chunks, np.nan), np.full(chunks, np.nan)
    for row, (apart, logprob, _) in rows.items():
        disagreement[row], forced[row] = apart, logprob
    family = "teacher" if name.partition(":")[0] in _TEACHERS else name
    return Observations(name, family, disagreement, forced, sum(passes for _, _, passes in rows.values()))
