"""`k2d eval`: compare models on a set with references."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import STUDENTS, Json, app, settings
from k2d.store import Lake
from trainer.commands.bars import bars
from trainer.need import need

if TYPE_CHECKING:
    from trainer.evaluation.eval_report import EvaluationReport


@app.command("eval", rich_help_panel=STUDENTS)
def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A manifest (.jsonl), a folder of Parquet files, a Common Voice folder or .tsv, a frozen dataset's "
            "name, or a set of the hub.",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model, or an address; repeatable. The others are compared with the first."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html, report.md, report.json and utterances.jsonl.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many utterances.", min=1)] = None,
    split: Annotated[str, typer.Option(help="Split of a folder, or of a set of the hub.")] = "test",
    language: Annotated[
        str | None, typer.Option(help="Prompt: `zh-en` (mixed), `auto`, or a Whisper code; as K2D_LANGUAGE.")
    ] = None,
    long_form: Annotated[
        bool,
        typer.Option(
            "--long-form/--no-long-form",
            help="Decode sequentially, as labels are made; or each utterance as one window of at most 30 s.",
        ),
    ] = True,
    draws: Annotated[int, typer.Option(help="Bootstrap draws for the confidence bands.", min=100)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    publish: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Put the result into the store, beside a run of `k2d train --publish`."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare models on a set with references: error rates with confidence bands, speed, size.

    Engine, precision, device and threads are those of the settings (K2D_ENGINE, K2D_COMPUTE_TYPE, …). Without
    `--model`, the teacher is evaluated alone.

    Example: `k2d eval test.jsonl --model packaged:whisper-base --model runs/first/best --out eval/first`
    """
    need("jinja2", "jiwer")
    from trainer.evaluation import report_files
    from trainer.evaluation.evaluate import EvaluationOptions
    from trainer.evaluation.evaluate import evaluate as evaluate_models
    from trainer.evaluation.publish import publish_evaluation
    from trainer.evaluation.sets import open_set

    chosen = settings()
    if language is not None:
        chosen = chosen.model_copy(update={"language": language})
    evaluation_set = open_set(source, chosen, split=split)
    if publish is not None:
        Lake(chosen.store).runs.record(publish)  # an unknown run is said before the work
    if out is not None:
        report_files.prepare(out)  # before hours of transcribing, not after them
    with bars(lambda model: f"{show.visible(model)} transcribes") as on_progress:
        report = evaluate_models(
            model or [chosen.teacher],
            evaluation_set,
            chosen,
            options=EvaluationOptions(limit=limit, long_form=long_form, draws=draws, seed=seed),
            on_progress=on_progress,
        )
    if out is not None:
        report_files.write(report, out)
    if publish is not None:
        publish_evaluation(Lake(chosen.store), publish, report, evaluation_set)
    if as_json:
        show.dump(report.document())
        return
    show.out.print(_table(report))
    show.out.print(_speeds(report))
    _print_remarks(report)
    if out is not None:
        show.out.print(f"report: {escape(str(out / 'report.html'))}", soft_wrap=True)


def _table(report: "EvaluationReport") -> Table:
    from trainer.evaluation.error_rates import METRICS
    from trainer.evaluation.render import band, change, percent

    facts = report.set
    table = _side_by_side(
        report,
        f"{escape(facts.name)}: {facts.utterances} utterances, {facts.seconds:.0f} s; rates in percent with 95 % bands",
    )
    for metric, title in METRICS.items():
        cells = []
        for side in report.models:
            figure = side.figures[metric]
            text = f"{percent(figure.rate.value)} [dim]{band(figure.rate)}[/]"
            cells.append(text + (f"\n[dim]{change(figure.difference)}[/]" if figure.difference else ""))
        table.add_row(title, *cells)
    table.add_section()
    table.add_row("repetitions", *(str(side.loops) for side in report.models))
    if facts.without_speech:
        counts = (f"{side.text_without_speech} of {facts.without_speech}" for side in report.models)
        table.add_row("text where there is no speech", *counts)
    return table


def _speeds(report: "EvaluationReport") -> Table:
    first = report.models[0].speed.real_time
    table = _side_by_side(report, "Speed and size")
    speeds = [side.speed for side in report.models]
    table.add_row("× real time", *(f"{speed.real_time:.1f}" for speed in speeds))
    table.add_row("against first", *(f"{speed.real_time / first:.2f}" if first else "–" for speed in speeds))
    table.add_row("tokens/s", *(f"{speed.tokens_per_s:.0f}" for speed in speeds))
    sizes = [side.size for side in report.models]
    table.add_row("parameters, M", *(f"{size.parameters / 1e6:.1f}" if size else "–" for size in sizes))
    table.add_row("MB on disk", *(f"{size.disk_mb:.0f}" if size else "–" for size in sizes))
    return table


def _side_by_side(report: "EvaluationReport", title: str) -> Table:
    """A table with a column a model: however narrow the terminal, its name is folded, not cut."""
    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for side in report.models:
        table.add_column(show.visible(side.reference), justify="right", overflow="fold")
    return table


def _print_remarks(report: "EvaluationReport") -> None:
    if report.set.pseudo_labels:
        show.out.print("[yellow]the references are pseudo-labels[/]: this is agreement with a teacher, not accuracy")
    if report.set.skipped:
        name, why = next(iter(report.set.skipped.items()))
        show.out.print(f"{len(report.set.skipped)} skipped, the first: {show.visible(name)}: {escape(why)}")
