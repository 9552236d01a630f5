"""The study as a document: what was run, the answer in three sentences, then tables."""

from collections.abc import Iterable
from typing import Final

from trainer.evaluation.bootstrap import Band
from trainer.study.about import About
from trainer.study.blocks import Document, Picture, Section, Table, Text, banded, number, percent, signed
from trainer.study.checks import Check, checks
from trainer.study.figures import Cut, Figures, Group, Study
from trainer.study.filters import COMPOSITE, NO_FILTER, Kind
from trainer.study.how_to_read import reading
from trainer.study.judge import BAD, KEPT, TOTAL_FAILURE, WRONG
from trainer.study.resampling import Pair

MOST_SHOWN: Final = 50  # rows of a list; report.json has the rest


def document(study: Study, about: About) -> Document:
    """Write the report; no transcript is in it, so it may be shown where the recordings may not."""
    sections = (
        _checks(study),
        _curves(study),
        _thresholds(study),
        _survivors(study),
        *([_salvage(study)] if study.salvage else []),
        *([_validators(study)] if len(study.validator_sets) > 1 or study.first.validators.cost_s is not None else []),
        *(_split(study, by) for by in ("language", "length", "set") if len(_groups(study, by)) > 1),
        _fairness(study),
        reading(study.how),
        _material(study),
    )
    return Document("Which filter keeps the better labels", about.line, _answer(study), sections)


def _answer(study: Study) -> str:
    labels, first = study.walked.labels, study.first
    best, paper = _named(first.figures, first.best.name), _named(first.figures, COMPOSITE)
    compared = study.compared[0]
    whole = _named(first.figures, NO_FILTER)
    own = study.own[0]
    single = [one for one in study.compared[1:] if one.area.difference.value is not None]
    nearest = max(single, key=lambda one: one.area.difference.value or -1.0)
    wins = "below every single measure" if _value(nearest.area.difference) < 0 else f"not below {nearest.against}"
    survivors = sum(one.policy == first.best.name for one in study.survivors)
    hours = labels.seconds.sum() / 3600
    return (
        f"Of {len(labels)} labels ({hours:.2f} h, label MER {number(whole.area.value)} unfiltered), the best 70 % of"
        f" the hours have label MER {banded(best.kept[0.7])} by {best.name} and {banded(paper.kept[0.7])} by the"
        f" paper's composite (validator: {first.validators.name}). The area under the risk–coverage curve is"
        f" {banded(best.area)} against {banded(paper.area)}: {banded(compared.area.ratio, 2)} times as large, smaller"
        f" in {_share(compared.area.below)} of the draws, {wins}. At its own α of {own.alpha:g}, {best.name} keeps"
        f" {percent(own.share)} of the hours at label MER {banded(own.mer_kept)}; of {study.failures} total failures"
        f" (true MER > {TOTAL_FAILURE:g}), {survivors} survive{'s' if survivors == 1 else ''} at α 0.6."
    )


# ---- sections -----------------------------------------------------------------------------------------------------


def _checks(study: Study) -> Section:
    def row(one: Check) -> tuple[str, ...]:
        return one.asked, one.found, "–" if one.holds is None else "yes" if one.holds else "NO"

    return Section("What was asked", (Table(("asked", "found", "holds"), tuple(map(row, checks(study)))),))


def _curves(study: Study) -> Section:
    first = study.first
    header = ("filter", "kind", "area", *(f"label MER, {100 * share:.0f} % kept" for share in KEPT))
    rows = sorted(first.figures, key=lambda one: one.area.value if one.area.value is not None else 9.0)
    against = tuple(
        (
            one.against,
            banded(one.area.ratio, 2),
            signed(one.area.difference),
            *_differences(one.kept),
            _share(one.area.below),
        )
        for one in study.compared
    )
    return Section(
        "Risk–coverage",
        (
            Picture("risk-coverage.png", "Label MER of what is kept, against the share of hours kept"),
            Table(
                header,
                tuple(
                    (one.name, str(one.kind), banded(one.area), *(banded(one.kept[share]) for share in KEPT))
                    for one in rows
                ),
                _strong(study, rows),
            ),
            Picture("areas.png", "Area under the curve of every filter, with bands"),
            Text(f"{first.best.name} against each of the others, draw by draw (negative is better):"),
            Table(
                (
                    "against",
                    "ratio of areas",
                    "difference of areas",
                    *(f"of label MER, {100 * share:.0f} % kept" for share in KEPT),
                    "draws below",
                ),
                against,
            ),
            Text("How well the same rankings tell bad labels from good ones, and errors at switch points:"),
            Table(
                (
                    "filter",
                    *(f"AUC, true MER > {limit:g}" for limit in BAD),
                    *(f"switch-point error, {100 * share:.0f} % kept" for share in KEPT),
                ),
                tuple(
                    (
                        one.name,
                        *(banded(one.auc[limit], 2) for limit in BAD),
                        *(banded(one.switch[share]) for share in KEPT),
                    )
                    for one in rows
                ),
                _strong(study, rows),
            ),
        ),
    )


def _thresholds(study: Study) -> Section:
    header = (
        "filter",
        "α",
        "hours kept",
        "label MER kept",
        "dropped",
        "random, as many hours",
        f"precision, MER > {WRONG:g}",
        f"recall, MER > {WRONG:g}",
        f"recall, MER > {TOTAL_FAILURE:g}",
        "switch-point error kept",
        f"failures kept, of {study.failures}",
    )
    rows = tuple(
        (
            one.name,
            "–" if one.alpha is None else f"{one.alpha:g}",
            percent(one.share),
            banded(one.mer_kept),
            number(one.mer_dropped.value),
            f"{one.random[0]:.3f} [{one.random[1]:.3f}–{one.random[2]:.3f}]",
            number(one.precision.value, 2),
            banded(one.recall, 2),
            number(one.recall_total.value, 2),
            number(one.switch_kept.value),
            str(one.failures),
        )
        for one in study.cuts
    )
    return Section(
        "At each α",
        (Picture("alpha.png", "Hours kept and label MER by α"), Table(header, rows, _strong(study, study.cuts))),
    )


def _survivors(study: Study) -> Section:
    names = [one.name for one in study.first.filters if one.kind is Kind.POLICY] + [COMPOSITE]
    blocks: list[Text | Table] = []
    for name in names:
        few = [one for one in study.survivors if one.policy == name]
        blocks.append(Text(f"{name} keeps {len(few)} of {study.failures} total failures at some α up to 0.6."))
        rows = tuple(
            (one.name, f"{one.seconds:.1f}", f"{one.edits} of {one.tokens}", number(one.score), f"{one.alpha:g}")
            for one in few[:MOST_SHOWN]
        )
        if rows:
            blocks.append(Table(("label", "seconds", "edits, of tokens", "score", "kept from α"), rows))
    return Section("Total failures that survive", tuple(blocks))


def _salvage(study: Study) -> Section:
    header = ("labels", "α", "hours whole", "label MER", "hours salvaged", "label MER", "hours together", "label MER")
    rows = tuple(
        (
            one.length,
            f"{one.alpha:g}",
            *(
                shown
                for part in ("whole", "salvaged", "together")
                for shown in (percent(one.share[part]), banded(one.mer[part]))
            ),
        )
        for one in study.salvage
    )
    told = (
        f"Of labels that {study.first.best.name} does not keep whole, segments that pass on their own evidence are"
        " kept. Shares are of the labels' seconds; a segment's truth is the part of its label's alignment that falls"
        " into it."
    )
    return Section("Salvage", (Text(told), Table(header, rows)))


def _validators(study: Study) -> Section:
    header = (
        "validator",
        "validators",
        "compute, s for an hour of audio",
        f"area, {study.first.best.name}",
        "difference to the first",
        "area, composite",
        "ratio",
        *(f"{study.first.best.name}, {100 * share:.0f} % kept" for share in KEPT),
        f"AUC, true MER > {WRONG:g}",
    )
    rows = []
    for at, (found, pair) in enumerate(zip(study.validator_sets, study.across, strict=True)):
        best, paper = _named(found.figures, found.best.name), _named(found.figures, COMPOSITE)
        against = found.compared(found.best.name, COMPOSITE)
        rows.append(
            (
                found.validators.name,
                f"{found.validators.validators} ({found.validators.fingerprints[1]})",
                number(found.validators.cost_s, 0),
                banded(best.area),
                signed(pair.difference) if at else "–",
                banded(paper.area),
                banded(against.area.ratio, 2),
                *(banded(best.kept[share]) for share in KEPT),
                banded(best.auc[WRONG], 2),
            )
        )
    pictures = [Picture("validators.png", "Areas under every validator")] if len(study.validator_sets) > 1 else []
    told = (
        "The same labels, doubted by others. Compute is the wall time of the hypotheses on this machine, labels being"
        " there and models loaded, in a store of its own over a sample of the material."
    )
    return Section("Validators side by side", (Text(told), *pictures, Table(header, tuple(rows))))


def _groups(study: Study, by: str) -> list[Group]:
    return [one for one in study.groups if one.by == by]


def _split(study: Study, by: str) -> Section:
    header = (
        by,
        "labels",
        "hours",
        "filter",
        "area",
        *(f"label MER, {100 * share:.0f} % kept" for share in KEPT),
        f"AUC, true MER > {WRONG:g}",
    )
    rows = tuple(
        (
            group.name,
            str(group.labels),
            f"{group.seconds / 3600:.2f}",
            one.name,
            banded(one.area),
            *(banded(one.kept[share]) for share in KEPT),
            banded(one.auc[WRONG], 2),
        )
        for group in _groups(study, by)
        for one in group.figures
    )
    return Section(f"By {by}", (Table(header, rows),))


def _fairness(study: Study) -> Section:
    header = (
        "code mixing",
        "labels",
        "hours",
        "policy",
        "α",
        "hours kept",
        f"labels with true MER ≤ {BAD[1]:g} kept",
        "label MER",
        "label MER kept",
    )
    rows = tuple(
        (
            group.name,
            str(group.labels),
            f"{group.seconds / 3600:.2f}",
            one.name,
            f"{one.alpha:g}",
            percent(one.share),
            percent(one.good_kept),
            number(_named(group.figures, NO_FILTER).area.value),
            banded(one.mer_kept),
        )
        for group in _groups(study, "code mixing")
        for one in group.cuts
    )
    told = (
        "The code-mixing index is 1 minus the share of the language that has more tokens, of what is said; 0 is"
        " monolingual. Each policy stands at its own α."
    )
    return Section("Fairness: acceptance by code mixing", (Text(told), Table(header, rows)))


def _material(study: Study) -> Section:
    walked = study.walked
    blocks: list[Text | Table] = [
        Text(
            f"{walked.recordings} recordings, {walked.seconds_in / 3600:.2f} h: {len(walked.labels)} labels with a"
            f" known truth, {len(walked.unlabeled)} recordings without a label because the teacher heard nothing,"
            f" {len(walked.aside)} set aside."
        )
    ]
    reasons: dict[str, int] = {}
    for why in walked.aside.values():
        reasons[why] = reasons.get(why, 0) + 1
    if reasons:
        rows = tuple((why, str(count)) for why, count in sorted(reasons.items(), key=lambda item: -item[1]))
        blocks.append(Table(("set aside", "recordings"), rows[:MOST_SHOWN]))
    return Section("Material", tuple(blocks))


# ---- helpers ------------------------------------------------------------------------------------------------------


def _named(figures: Iterable[Figures], name: str) -> Figures:
    return next(one for one in figures if one.name == name)


def _strong(study: Study, rows: Iterable[Figures | Cut]) -> frozenset[int]:
    """Rows of the composite and of the policies themselves."""
    names = {COMPOSITE, *(one.name for one in study.first.filters if one.kind is Kind.POLICY)}
    return frozenset(at for at, one in enumerate(rows) if one.name in names)


def _differences(kept: dict[float, Pair]) -> tuple[str, ...]:
    return tuple(signed(kept[share].difference) for share in KEPT)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _value(found: Band) -> float:
    return 0.0 if found.value is None else found.value
