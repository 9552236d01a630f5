"""`k2d review`, `k2d calibrate`: from a few hundred reviewed segments to a policy with a proven label error."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import (
    DEFAULT_POLICY,
    REVIEWING,
    AlphaOption,
    Api,
    Json,
    MetricOption,
    PolicyName,
    app,
    client_of,
    policy,
    settings,
)
from k2d.cli.progress import bar
from k2d.documents import CalibrationRequest, DrawItem, DrawRequest
from k2d.errors import BadRequest, NotFound
from k2d.store.reviews import ReviewOrder
from k2d.wording import audio_length, counted

if TYPE_CHECKING:
    from k2d.corpus.calibration.calibrate import Calibration
    from k2d.corpus.calibration.reviews import ReviewHead, ReviewRow
    from k2d.schema import Batch
    from k2d.store import Lake

SHOWN: Final = 16  # rows of the printed curve


@app.command(rich_help_panel=REVIEWING)
def review(
    batch: Annotated[list[str], typer.Argument(help="Batch ids or names.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write: JSON lines, one segment a line. An existing file is not overwritten. Without it, "
            "review on the console's page."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Number of draws; a segment that is drawn twice is reviewed once.")] = 300,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder in which to write each segment's audio as FLAC.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    order: Annotated[
        ReviewOrder,
        typer.Option(
            help="`random`: the sample that calibration needs. `value`: the segments that teach most, near α and "
            "unlike one another; nothing can be proved by them."
        ),
    ] = ReviewOrder.RANDOM,
    preset: PolicyName = DEFAULT_POLICY,
    metric: MetricOption = None,
    alpha: AlphaOption = None,
    as_json: Json = False,
    api: Api = None,
) -> None:
    """Draw segments for a person to review, over the whole range of risk, with known probabilities.

    The draw is kept in the store (K2D_STORE), or in that of an API (--api): review it in a browser, on the console's
    page /review/ID, or in the file. There the reviewer writes what is said to `reference` ("" for nothing), or sets
    `correct`, in the order of the lines: wherever they stop, the reviewed lines are a fair sample. Then run
    `k2d calibrate`.
    """
    from k2d.corpus.calibration import reviews
    from k2d.corpus.calibration.draws import answered_rows, make_draw
    from k2d.corpus.calibration.review import write_audio
    from k2d.store import Lake

    if out is not None and out.exists():
        raise BadRequest(f"{out} exists", hint="reviews are not overwritten: choose another name")
    if audio is not None and out is None:
        raise BadRequest("--audio belongs to a file", hint="--out review.jsonl; the console plays without either")
    if api is not None:
        if out is not None:
            raise BadRequest(
                "a file is written from the store itself", hint="review on the console's page, or on its host"
            )
        request = DrawRequest(batches=batch, policy=policy(preset, metric, alpha), count=count, seed=seed, order=order)
        _print_draw(client_of(api).draw(request), api, as_json=as_json)
        return
    lake = Lake(settings().store)
    batches = [lake.batches.get(name) for name in dict.fromkeys(batch)]
    draw = make_draw(lake, batches, policy(preset, metric, alpha), count=count, seed=seed, order=order)
    head, rows = draw.head, answered_rows(lake, draw)
    if out is not None:
        reviews.write(out, head, write_audio(lake, rows, audio) if audio is not None else rows)
    if as_json:
        show.dump({"id": draw.id} | head.model_dump(mode="json", exclude_none=True))
        return
    seconds = sum(row.end_s - row.start_s for row in rows)
    segments = counted(int(head.population["segments"]), "segment")
    show.out.print(
        f"{counted(len(rows), 'segment')} to review ({audio_length(seconds)} of speech) by {counted(count, 'draw')} "
        f"from {head.population['reachable']} of {segments}: {escape(str(out or draw.id))}",
        soft_wrap=True,
    )
    address = settings().api_url
    start = "" if client_of(address).is_up() else "start the console with `k2d up`, then open "
    show.out.print(
        f"in a browser: {start}{address}/review/{draw.id}; then run: k2d calibrate {draw.id}", soft_wrap=True
    )
    if out is not None:
        show.out.print(
            f'or set "reference" (what is said) or "correct" in each line, from the top; then run: k2d calibrate {out}',
            markup=False,
            soft_wrap=True,
        )


def _print_draw(draw: DrawItem, api: str, *, as_json: bool) -> None:
    if as_json:
        show.dump(draw)
        return
    segments = counted(draw.segments, "segment")
    show.out.print(f"{segments} to review, by {counted(draw.draws, 'draw')} from {draw.reachable}: {draw.id}")
    show.out.print(f"in a browser: {api.rstrip('/')}/review/{draw.id}", soft_wrap=True)
    show.out.print(f"then run: k2d calibrate {draw.id} --api {api}", soft_wrap=True)


@app.command(rich_help_panel=REVIEWING)
def calibrate(
    reviewed: Annotated[
        str,
        typer.Argument(metavar="REVIEW", help="The id of a draw, with its reviews in the store; or a reviewed file."),
    ],
    batch: Annotated[
        list[str] | None, typer.Argument(help="Batch ids or names; default: those the segments were drawn from.")
    ] = None,
    target: Annotated[float, typer.Option(help="Largest label error (MER) of what is kept, 0…1.")] = 0.08,
    confidence: Annotated[float, typer.Option(help="Confidence level, 0.5…1.")] = 0.95,
    out: Annotated[
        Path | None, typer.Option(help="File for the policy (YAML); the curve is written beside it as PNG.")
    ] = None,
    as_json: Json = False,
    api: Api = None,
) -> None:
    """Fit the policy's weights to reviewed segments, and choose an α that provably keeps the label error to a target.

    If no α can be proved, no policy is written, the number of reviews that it would take is printed, and the exit
    status is 1. Without any review, the preset is written with this corpus's speech rate and without a claim. Reads
    the store (K2D_STORE), or asks an API (--api) about a draw. What is proved, and how: docs/calibration.md.
    """
    from k2d.corpus.calibration.calibrate import calibrate as run_calibration
    from k2d.corpus.calibration.calibrate import calibration_of
    from k2d.store import Lake

    name = out.stem if out else "calibrated"
    if api is not None:
        if batch:
            raise BadRequest("an API calibrates over the batches of the draw", hint="leave the batches out")
        request = CalibrationRequest(target=target, confidence=confidence, name=name)
        _finish(calibration_of(client_of(api).calibrate(reviewed, request)), out, as_json=as_json)
        return
    lake = Lake(settings().store)
    head, rows, batches = _reviewed(lake, reviewed, batch)
    with bar("parts of batches, twice") as on_steps:
        calibration = run_calibration(
            lake, head, rows, batches, target=target, confidence=confidence, name=name, on_steps=on_steps
        )
    _finish(calibration, out, as_json=as_json)


def _finish(calibration: "Calibration", out: Path | None, *, as_json: bool) -> None:
    """Write the policy if there is one to write, and print what was found."""
    written = (
        _write(calibration, out) if out is not None and (calibration.alpha is not None or not calibration.draws) else []
    )
    if as_json:
        show.dump(calibration.document() | {"written": [str(path) for path in written]})
    else:
        _print_report(calibration, written)
    if calibration.draws and calibration.alpha is None:
        raise typer.Exit(1)


def _reviewed(
    lake: "Lake", draw_or_file: str, batch: list[str] | None
) -> "tuple[ReviewHead, list[ReviewRow], list[Batch]]":
    """The reviews of a draw in the store, or of a file; and the batches to calibrate over."""
    from k2d.corpus.calibration import reviews
    from k2d.corpus.calibration.draws import answered_rows, open_draw, with_labels
    from k2d.store.reviews import DRAW_ID

    if DRAW_ID.fullmatch(draw_or_file) and not Path(draw_or_file).exists():
        draw = open_draw(lake, draw_or_file)
        with with_labels(lake, draw):
            return draw.head, answered_rows(lake, draw), _batches(lake, batch or draw.head.batches)
    if not Path(draw_or_file).exists():
        raise NotFound(
            f"neither a draw nor a file: {draw_or_file[:200]!r}",
            hint="`k2d reviews draws` lists the draws; `k2d review BATCH` makes one, with --out FILE as a file",
        )
    head, rows = reviews.load(Path(draw_or_file))
    return head, rows, _batches(lake, batch or head.batches)


def _batches(lake: "Lake", names: list[str]) -> "list[Batch]":
    return [lake.batches.get(name) for name in dict.fromkeys(names)]


def _write(calibration: "Calibration", out: Path) -> list[Path]:
    from k2d.corpus.calibration.picture import can_draw, write_picture
    from k2d.filtering.policy import to_yaml

    written = [out]
    try:
        out.write_text(to_yaml(calibration.policy), "utf-8")
        if calibration.draws and can_draw():
            written.append(out.with_suffix(".png"))
            write_picture(calibration, written[-1])
    except OSError as error:
        raise BadRequest(f"cannot write {error.filename or out}: {error.strerror}") from error
    return written


def _print_report(calibration: "Calibration", written: list[Path]) -> None:
    for note in calibration.notes:
        show.out.print(f"[yellow]note[/]: {escape(note)}", soft_wrap=True)
    if not calibration.draws:
        show.out.print("nothing is reviewed: the preset's weights and α are kept, and no label error is claimed")
    else:
        show.out.print(_table(calibration))
        show.out.print(_weights(calibration), soft_wrap=True)
        show.out.print(_answer(calibration), soft_wrap=True)
    for path in written:
        show.out.print(f"written: {escape(str(path))}", soft_wrap=True)


def _answer(calibration: "Calibration") -> str:
    if calibration.alpha is not None:
        return f"[green]{escape(calibration.policy.claim or '')}[/]\nα = {calibration.alpha:g}"
    target = f"label MER ≤ {calibration.target:.1%} cannot be proved with {calibration.confidence:.0%} confidence"
    if calibration.reviews_needed is None:
        estimates = [point.label_mer for point in calibration.curve if point.label_mer is not None]
        least = f"; the lowest estimate at any α is {min(estimates):.1%}" if estimates else ""
        return f"[red]{target}[/], and more reviews like these would not change that{least}"
    return f"[red]{target}[/] by these reviews: it takes about {calibration.reviews_needed} like these"


def _weights(calibration: "Calibration") -> str:
    proof = (
        f"{calibration.pilot:,} of {counted(calibration.draws, 'reviewed draw')} chose the policy, "
        f"{calibration.draws - calibration.pilot:,} prove its claim"
    )
    if calibration.fit is None:
        return f"{proof}; too few reviews to fit weights: the preset's are kept"
    losses = f"log loss {calibration.fit.loss:.4f} against {calibration.fit.preset_loss:.4f}"
    if not calibration.fit.fitted:
        return f"{proof}; no weights predict the reviews better than the preset's, which are kept"
    return f"{proof}; weights were fitted (cross-fitted {losses} with the preset's)"


def _table(calibration: "Calibration") -> Table:
    table = Table(
        title=f"Label MER of what each α keeps; each end of a band holds with {calibration.confidence:.0%} confidence",
        title_justify="left",
    )
    for column in ("α", "kept", "share", "label MER", "band", "proved"):
        table.add_column(column, justify="right")
    step = max(1, -(-len(calibration.curve) // SHOWN))
    last = len(calibration.curve) - 1
    for index, point in enumerate(calibration.curve):
        if index % step != last % step and point.alpha != calibration.alpha:
            continue
        table.add_row(
            f"{point.alpha:.4f}",
            audio_length(point.seconds),
            f"{point.share:.0%}",
            "–" if point.label_mer is None else f"{point.label_mer:.1%}",
            f"{point.lower:.1%} – {point.upper:.1%}",
            "yes" if point.proved else "",
            style="bold green" if point.alpha == calibration.alpha else None,
        )
    return table
