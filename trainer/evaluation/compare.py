"""From transcripts to figures: the sums, the bands, the groups, the worst utterances. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from k2d.filtering.distance import aligned_diff, counts, read
from k2d.schema import WINDOW_S, Counts
from trainer.evaluation.bootstrap import band, by_recording, point, resampled
from trainer.evaluation.error_rates import BUCKETS, METRICS, Tally, bucket, embedded_language
from trainer.evaluation.eval_report import Figure, Group, Line, Piece, SetFacts, Side
from trainer.evaluation.hearing import Heard, Hearing
from trainer.evaluation.size import Size
from trainer.evaluation.utterances import EvaluationSet, Said

LENGTHS = (f"up to {WINDOW_S:.0f} s", f"over {WINDOW_S:.0f} s")


@dataclass(frozen=True, slots=True)
class Scored:
    """One utterance with what each model made of it."""

    said: Said
    heard: tuple[Heard, ...]
    tallies: tuple[Tally, ...]

    @property
    def seconds(self) -> float:
        return self.heard[0].seconds


def compared(
    models: Sequence[str],
    found: EvaluationSet,
    hearings: Sequence[Hearing],
    scored: Sequence[Scored],
    *,
    sizes: Sequence[Size | None],
    set_aside: dict[str, str],
    how: tuple[int, int, int],
) -> tuple[SetFacts, tuple[Side, ...], tuple[Group, ...], tuple[Line, ...], tuple[Line, ...]]:
    """Put the models side by side. `how` is draws and seed of the bootstrap, and how many of the worst to show."""
    draws, seed, worst = how
    embedded = embedded_language(one.said.references[0] for one in scored)
    whole = figures(scored, embedded=embedded, draws=draws, seed=seed)
    sides = tuple(
        Side(
            reference=model,
            model=hearing.model,
            figures={metric: whole[metric][index] for metric in METRICS},
            loops=sum(one.tallies[index].loops for one in scored),
            spoke_in_silence=sum(one.tallies[index].spoke for one in scored if not one.tallies[0].said),
            speed=hearing.speed,
            size=size,
        )
        for index, (model, hearing, size) in enumerate(zip(models, hearings, sizes, strict=True))
    )
    facts = SetFacts(
        name=found.name,
        kind=found.kind,
        pseudo_labels=found.pseudo_labels,
        utterances=len(scored),
        without_speech=sum(not one.tallies[0].said for one in scored),
        recordings=len({one.said.recording for one in scored}),
        seconds=round(sum(one.seconds for one in scored), 3),
        embedded=embedded,
        set_aside=set_aside,
    )
    last = sorted(scored, key=lambda one: (-one.tallies[-1].mixed.edits, one.said.name))[:worst]
    shown = tuple(_line(one, diffs=True) for one in last if one.tallies[-1].mixed.edits)
    groups = tuple(
        Group(by, name, len(members), round(sum(one.seconds for one in members), 3), found_figures)
        for by, name, members in _groups(scored)
        for found_figures in [figures(members, embedded=embedded, draws=draws, seed=seed)]
    )
    return facts, sides, groups, shown, tuple(_line(one) for one in scored)


def figures(scored: Sequence[Scored], *, embedded: str, draws: int, seed: int) -> dict[str, tuple[Figure, ...]]:
    """Every metric of every model over some utterances, with paired bands: one draw of recordings serves them all."""
    models = len(scored[0].tallies)
    sums = [[_sum(scored, index, metric, embedded) for metric in METRICS] for index in range(models)]
    # columns: all metrics of the first model, then of the second …
    counted = [[tally.of(metric, embedded=embedded) for tally in one.tallies for metric in METRICS] for one in scored]
    recordings = [one.said.recording for one in scored]
    edits = by_recording(np.array([[count.edits for count in row] for row in counted], float), recordings)
    tokens = by_recording(np.array([[count.reference_length for count in row] for row in counted], float), recordings)
    points = point(edits, tokens).reshape(models, len(METRICS))
    rates = resampled(edits, tokens, draws=draws, seed=seed).reshape(draws, models, len(METRICS))
    return {
        metric: tuple(
            Figure(
                rate=band(points[index, column], rates[:, index, column]),
                counts=sums[index][column],
                difference=band(
                    points[index, column] - points[0, column], rates[:, index, column] - rates[:, 0, column]
                )
                if index
                else None,
            )
            for index in range(models)
        )
        for column, metric in enumerate(METRICS)
    }


def _sum(scored: Sequence[Scored], index: int, metric: str, embedded: str) -> Counts:
    return reduce(add, (one.tallies[index].of(metric, embedded=embedded) for one in scored), Counts())


def _groups(scored: Sequence[Scored]) -> list[tuple[str, str, list[Scored]]]:
    """By language, by code mixing of what was said, by length; groups without members are left out."""
    found: dict[tuple[str, str], list[Scored]] = {}
    mixing = [name for _, name in BUCKETS]
    order = [("code mixing", name) for name in mixing] + [("length", name) for name in LENGTHS]
    for one in scored:
        found.setdefault(("language", one.said.language), []).append(one)
        if name := bucket(one.said.references[0]):
            found.setdefault(("code mixing", name), []).append(one)
        found.setdefault(("length", LENGTHS[one.seconds > WINDOW_S]), []).append(one)
    languages = sorted((key for key in found if key[0] == "language"), key=lambda key: -len(found[key]))
    return [(*key, found[key]) for key in [*languages, *order] if key in found]


def _line(one: Scored, *, diffs: bool = False) -> Line:
    return Line(
        name=one.said.name,
        language=one.said.language,
        seconds=round(one.seconds, 3),
        said=one.said.references[0],
        heard=tuple(heard.text for heard in one.heard),
        edits=tuple(tally.mixed.edits for tally in one.tallies),
        tokens=tuple(tally.mixed.reference_length for tally in one.tallies),
        diffs=tuple(_diff(one, index) for index in range(len(one.heard))) if diffs else (),
    )


def _diff(one: Scored, index: int) -> tuple[Piece, ...]:
    """Against the reference that counted: the written one, or the spoken one where that was nearer."""
    heard = one.heard[index].text
    wanted = one.tallies[index].mixed
    against = next((text for text in one.said.references if _counts(text, heard) == wanted), one.said.references[0])
    return tuple(
        Piece(str(piece.op), piece.validator_text, piece.teacher_text) for piece in aligned_diff(heard, against)
    )


def _counts(reference: str, heard: str) -> Counts:
    return counts(read(reference).tokens, read(heard).tokens)
