"""`k2d review`, `k2d calibrate`: from a few hundred reviewed segments to a policy with a proven label error."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import DEFAULT_POLICY, AlphaOption, Json, MetricOption, PolicyName, app, policy, settings
from k2d.errors import BadRequest

if TYPE_CHECKING:
    from k2d.corpus.calibration.calibrate import Calibration

SHOWN = 16  # rows of the printed curve


@app.command()
def review(
    batch: Annotated[list[str], typer.Argument(help="Batch ids or names.")],
    out: Annotated[Path, typer.Option(help="JSON lines, one segment a line; never overwritten.")],
    count: Annotated[int, typer.Option(help="Draws; a segment that is drawn twice is reviewed once.")] = 300,
    audio: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each segment's sound here, as FLAC.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    preset: PolicyName = DEFAULT_POLICY,
    metric: MetricOption = None,
    alpha: AlphaOption = None,
    as_json: Json = False,
) -> None:
    """Draw segments for a person to review, over the whole range of risk, with known chances.

    The reviewer fills in `reference` with what is said ("" for nothing), or sets `correct`. From the top, in order:
    stopping anywhere leaves a fair sample. Then: `k2d calibrate`. Reads the store (K2D_STORE).
    """
    from k2d.corpus.calibration import review as make
    from k2d.corpus.calibration import reviews
    from k2d.store import Lake

    if out.exists():
        raise BadRequest(f"{out} exists", hint="reviews are not overwritten: choose another name")
    lake = Lake(settings().store)
    batches = [lake.batches.get(name) for name in dict.fromkeys(batch)]
    head, rows = make.review(lake, batches, policy(preset, metric, alpha), count=count, seed=seed)
    if audio is not None:
        rows = make.write_audio(lake, rows, audio)
    reviews.write(out, head, rows)
    if as_json:
        show.dump(head)
        return
    seconds = sum(row.end_s - row.start_s for row in rows)
    show.out.print(
        f"{len(rows)} segments to review ({seconds / 60:.0f} minutes of speech) by {count} draws from "
        f"{head.population['reachable']} of {head.population['segments']} segments: {escape(str(out))}",
        soft_wrap=True,
    )
    show.out.print('set "reference" (what is said) or "correct" in each line, from the top; then: k2d calibrate')


@app.command()
def calibrate(
    review_file: Annotated[Path, typer.Argument(metavar="REVIEW", help="What `k2d review` wrote, reviewed.")],
    batch: Annotated[list[str] | None, typer.Argument(help="Batch ids or names; default: those it drew from.")] = None,
    target: Annotated[float, typer.Option(help="Label error (MER) of what is kept: 0…1.")] = 0.08,
    confidence: Annotated[float, typer.Option(help="How sure the answer is to be: 0.5…1.")] = 0.95,
    out: Annotated[Path | None, typer.Option(help="Write the policy here (YAML); the curve beside it as PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Fit the policy's weights to reviewed segments and choose α for a label error, with proof.

    Exit status 1 when no α can be proved: then no policy is written, and about how many reviews it takes is said.
    Without any review the preset is written with this corpus's speech rate and claims nothing. Reads the store
    (K2D_STORE). What is proved, and how: docs/calibration.md.
    """
    from k2d.corpus.calibration import reviews
    from k2d.corpus.calibration.calibrate import calibrate as run
    from k2d.store import Lake

    lake = Lake(settings().store)
    head, rows = reviews.load(review_file)
    batches = [lake.batches.get(name) for name in dict.fromkeys(batch or head.batches)]
    name = out.stem if out else "calibrated"
    found = run(lake, head, rows, batches, target=target, confidence=confidence, name=name)
    written = _write(found, out) if out is not None and (found.alpha is not None or not found.draws) else []
    if as_json:
        show.dump(found.document() | {"written": [str(path) for path in written]})
    else:
        _tell(found, written)
    if found.draws and found.alpha is None:
        raise typer.Exit(1)


def _write(found: "Calibration", out: Path) -> list[Path]:
    from k2d.corpus.calibration.picture import can_draw, write_picture
    from k2d.filtering.policy import to_yaml

    written = [out]
    try:
        out.write_text(to_yaml(found.policy), "utf-8")
        if found.draws and can_draw():
            written.append(out.with_suffix(".png"))
            write_picture(found, written[-1])
    except OSError as error:
        raise BadRequest(f"cannot write {error.filename or out}: {error.strerror}") from error
    return written


def _tell(found: "Calibration", written: list[Path]) -> None:
    for note in found.notes:
        show.out.print(f"[yellow]note[/]: {escape(note)}", soft_wrap=True)
    if not found.draws:
        show.out.print("nothing is reviewed: the preset's weights and α stay, and no label error is claimed")
    else:
        show.out.print(_table(found))
        show.out.print(_weights(found), soft_wrap=True)
        show.out.print(_answer(found), soft_wrap=True)
    for path in written:
        show.out.print(f"written: {escape(str(path))}", soft_wrap=True)


def _answer(found: "Calibration") -> str:
    if found.alpha is not None:
        return f"[green]{escape(found.policy.claim or '')}[/]\nα = {found.alpha:g}"
    wish = f"label MER ≤ {found.target:.1%} cannot be proved with {found.confidence:.0%} confidence"
    if found.reviews_needed is None:
        estimates = [point.label_mer for point in found.curve if point.label_mer is not None]
        least = f"; the least that was estimated at any α is {min(estimates):.1%}" if estimates else ""
        return f"[red]{wish}[/], and more reviews like these would not do it{least}"
    return f"[red]{wish}[/] by these reviews: it takes about {found.reviews_needed} like these"


def _weights(found: "Calibration") -> str:
    proof = f"{found.draws - found.pilot} of {found.draws} reviewed draws prove, {found.pilot} chose"
    if found.fit is None:
        return f"{proof}; too few reviews to fit weights: the preset's stay"
    losses = f"log loss {found.fit.loss:.4f} against {found.fit.preset_loss:.4f}"
    if not found.fit.fitted:
        return f"{proof}; no weights predict the reviews better than the preset's: they stay"
    return f"{proof}; weights were fitted (cross-fitted {losses} of the preset)"


def _table(found: "Calibration") -> Table:
    table = Table(
        title=f"Label MER of what each α keeps; each end of a band holds with {found.confidence:.0%}",
        title_justify="left",
    )
    for column in ("α", "hours kept", "share", "label MER", "band", "proved"):
        table.add_column(column, justify="right")
    step = max(1, -(-len(found.curve) // SHOWN))
    last = len(found.curve) - 1
    for place, point in enumerate(found.curve):
        if place % step != last % step and point.alpha != found.alpha:
            continue
        table.add_row(
            f"{point.alpha:.4f}",
            f"{point.seconds / 3600:.2f}",
            f"{point.share:.0%}",
            "–" if point.label_mer is None else f"{point.label_mer:.1%}",
            f"{point.lower:.1%} – {point.upper:.1%}",
            "yes" if point.proved else "",
            style="bold green" if point.alpha == found.alpha else None,
        )
    return table
