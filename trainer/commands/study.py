"""`k2d study`: on speech with references, which filter keeps the better labels?"""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import DEFAULT_POLICY, STUDENTS, Json, app, settings
from k2d.errors import BadRequest
from k2d.filtering.policy import load as load_policy
from trainer.commands.bars import bars
from trainer.need import need

if TYPE_CHECKING:
    from trainer.study.results import Study


@app.command(rich_help_panel=STUDENTS)
def study(
    manifests: Annotated[
        list[str],
        typer.Argument(
            metavar="SET...",
            help="Sets with references: manifests (.jsonl, also NeMo's), folders with one, all else `k2d eval` reads.",
        ),
    ],
    store: Annotated[str | None, typer.Option(help="Where labels are stored; default: K2D_STORE.")] = None,
    validator: Annotated[
        list[str] | None,
        typer.Option(
            "--validator",
            "--validators",
            metavar="NAMES",
            help="A validator, or several joined by `+`; repeatable, to compare them. The first is examined closely. "
            "Default: K2D_VALIDATOR.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME-OR-FILE", help="A preset or a policy file; repeatable. The first is examined closely."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.md, report.html, report.json, pictures, labels.")] = Path(
        "study"
    ),
    limit: Annotated[int | None, typer.Option(help="Only the first so many recordings of each set.", min=1)] = None,
    split: Annotated[str, typer.Option(help="Split of a folder, or of a set of the hub.")] = "test",
    bootstrap: Annotated[int, typer.Option(help="Bootstrap draws for the bands.", min=100)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
    cost: Annotated[
        float, typer.Option(help="Seconds of audio over which each validator's compute is measured; 0: not.", min=0)
    ] = 300.0,
    as_json: Json = False,
) -> None:
    """Study filters on speech with references: which labels does each keep, which does it drop?

    Labels every recording as the service does, with each set of validators, and compares all filters: none, random,
    n-grams, Whisper's own signals, MER, PER, the paper's composite, the policies and each feature of their evidence.
    The references are used by the study only. docs/study.md defines every figure.

    Example: `k2d study clips.jsonl --validator perturbed --policy evidence --policy paper --out study`
    """
    need("jinja2", "jiwer", "matplotlib")
    from trainer.study import study_files
    from trainer.study.about import about
    from trainer.study.figures import study as judge
    from trainer.study.labeling import label_material
    from trainer.study.material import gather
    from trainer.study.resampling import BootstrapOptions
    from trainer.study.study_report import document

    chosen = settings()
    if store is not None:
        chosen = chosen.model_copy(update={"store": store})
    validators = validator or [chosen.validator]
    if len(set(validators)) < len(validators):
        raise BadRequest("--validator is given twice with the same value", hint="give each once")
    policies = [load_policy(name) for name in policy or [DEFAULT_POLICY]]
    study_files.prepare(out)  # before hours of labeling, not after them
    with tempfile.TemporaryDirectory(prefix="k2d-study-") as folder:
        material, skipped = gather(manifests, chosen, split=split, limit=limit, folder=Path(folder))
        if not material:
            why = next(iter(skipped.values()), "the sets are empty")
            raise BadRequest(f"no recording can be studied ({why})", hint="rows need audio that exists, and a text")
        with bars() as on_progress:
            labeled = label_material(material, validators, chosen, on_progress=on_progress, cost_audio_s=cost)
    labeled.skipped.update(skipped)
    if not len(labeled.labels):
        raise BadRequest("no recording has a label whose reference is known", hint="docs/study.md says which have")
    result = judge(labeled, policies, BootstrapOptions(bootstrap, seed))
    description = about(labeled, policies, sys.argv[1:], chosen)
    study_files.write(result, description, out)
    if as_json:
        show.dump(study_files.as_json(result, description))
        return
    show.out.print(_table(result))
    show.out.print(escape(document(result, description).answer), soft_wrap=True)
    show.out.print(f"report: {escape(str(out / 'report.html'))}", soft_wrap=True)


def _table(result: "Study") -> Table:
    from trainer.study.blocks import format_band
    from trainer.study.filters import FilterKind
    from trainer.study.judge import KEPT

    table = Table(title="Label MER of what is kept, with 95 % bands; best first", title_justify="left")
    table.add_column("filter")
    for title in ("area", *(f"{100 * share:.0f} % kept" for share in KEPT)):
        table.add_column(title, justify="right")
    shown = [figures for figures in result.first.figures if figures.kind not in (FilterKind.PART, FilterKind.FEATURE)]
    for figures in sorted(shown, key=lambda figures: 9.0 if figures.area.value is None else figures.area.value):
        kept = (format_band(figures.kept[share]) for share in KEPT)
        table.add_row(escape(figures.name), format_band(figures.area), *kept)
    return table
