"""`k2d study`: on speech whose words are known, which filter keeps the better labels?"""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import DEFAULT_POLICY, Json, app, settings
from k2d.errors import BadRequest
from k2d.filtering.policy import load as load_policy
from trainer.commands.bars import bars

if TYPE_CHECKING:
    from trainer.study.figures import Study


@app.command()
def study(
    manifests: Annotated[
        list[str],
        typer.Argument(
            metavar="SET...",
            help="Labeled sets: manifests (.jsonl, NeMo's too), folders that hold one, whatever `k2d eval` reads.",
        ),
    ],
    store: Annotated[str | None, typer.Option(help="Keep labels here; as K2D_STORE.")] = None,
    validator: Annotated[
        list[str] | None,
        typer.Option(
            "--validator",
            "--validators",
            metavar="PANEL",
            help="A validator, or several joined by `+`; several times, to see them side by side. The first is looked "
            "at closely. Without it: K2D_VALIDATOR.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME-OR-FILE", help="A preset or a policy file; several times. The first is looked at closely."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.md, report.html, report.json, pictures, labels.")] = Path(
        "study"
    ),
    limit: Annotated[int | None, typer.Option(help="Only the first so many recordings of each set.", min=1)] = None,
    split: Annotated[str, typer.Option(help="Split of a folder, or of a set of the hub.")] = "test",
    bootstrap: Annotated[int, typer.Option(help="Draws behind the bands.", min=100)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draws.", min=0)] = 0,
    cost: Annotated[
        float, typer.Option(help="Seconds of audio over which each validator's compute is measured; 0: not.", min=0)
    ] = 300.0,
    as_json: Json = False,
) -> None:
    """Study the filter on speech whose words are known: which labels does it keep, which does it drop?

    Labels every recording as the service does, with each validator, and compares all filters: none, random, n-grams,
    Whisper's own signals, MER, PER, the paper's composite, the policies and every piece of their evidence. The
    references are used by the study only. docs/study.md defines every figure.
    """
    from trainer.need import need

    need("jinja2", "matplotlib")
    from trainer.study import study_files as files
    from trainer.study.about import about
    from trainer.study.figures import study as judge
    from trainer.study.material import gather
    from trainer.study.resampling import How
    from trainer.study.study_report import document
    from trainer.study.walk import walk

    found = settings()
    if store is not None:
        found = found.model_copy(update={"store": store})
    validator_sets = validator or [found.validator]
    if len(set(validator_sets)) < len(validator_sets):
        raise BadRequest("a validator is named twice", hint="name each once")
    policies = [load_policy(one) for one in policy or [DEFAULT_POLICY]]
    files.prepare(out)  # before hours of labeling, not after them
    with tempfile.TemporaryDirectory(prefix="k2d-study-") as folder:
        material, aside = gather(manifests, found, split=split, limit=limit, folder=Path(folder))
        if not material:
            why = next(iter(aside.values()), "the sets are empty")
            raise BadRequest(f"no recording can be studied ({why})", hint="rows need audio that exists, and a text")
        with bars() as told:
            walked = walk(material, validator_sets, found, told=told, cost_audio_s=cost)
    walked.aside.update(aside)
    if not len(walked.labels):
        raise BadRequest("no recording has a label whose truth is known", hint="docs/study.md says which have")
    judged = judge(walked, policies, How(bootstrap, seed))
    described = about(walked, policies, sys.argv[1:])
    files.write(judged, described, out)
    if as_json:
        show.dump(files.as_json(judged, described))
        return
    show.out.print(_table(judged))
    show.out.print(escape(document(judged, described).answer), soft_wrap=True)
    show.out.print(f"report: {escape(str(out / 'report.html'))}", soft_wrap=True)


def _table(judged: "Study") -> Table:
    from trainer.study.blocks import banded
    from trainer.study.filters import Kind
    from trainer.study.judge import KEPT

    table = Table(title="Label MER of what is kept, with 95 % bands; best first", title_justify="left")
    table.add_column("filter")
    for title in ("area", *(f"{100 * share:.0f} % kept" for share in KEPT)):
        table.add_column(title, justify="right")
    shown = [one for one in judged.first.figures if one.kind not in (Kind.PART, Kind.FEATURE)]
    for one in sorted(shown, key=lambda one: one.area.value if one.area.value is not None else 9.0):
        table.add_row(escape(one.name), banded(one.area), *(banded(one.kept[share]) for share in KEPT))
    return table
