"""Records a run while it goes on: curves in files, TensorBoard, Weights & Biases, and a progress bar."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from k2d.cli import show
from k2d.errors import ModelError, install_hint
from k2d.wording import counted
from trainer.options import Recipe
from trainer.run.estimate import Estimate
from trainer.run.publish import RunPublisher
from trainer.run.runs import METRICS, VALIDATION, Run

LINES: Final = 20  # that a run without a terminal prints, about
SCALARS: Final = ("loss", "ce", "kl", "learning_rate", "gradient_norm", "tokens_per_s", "waited_s", "rows")


class Recorder:
    """Records one run; in processes that are not `active` it does nothing."""

    def __init__(self, run: Run, recipe: Recipe, *, active: bool, publisher: RunPublisher | None = None) -> None:
        self._run, self._recipe, self._active = run, recipe, active
        self._publisher = publisher if active else None
        self._bar: Progress | None = None
        self._task: Any = None
        self._tensorboard: Any = None
        self._wandb: Any = None
        self._last_mer: float | None = None

    def announce(self, table: Sequence[dict[str, Any]], estimate: Estimate, chosen: str) -> None:
        """Print what will be trained, what the software chose, and the estimate."""
        if not self._active:
            return
        show.out.print(student_table(table))
        show.out.print(escape(chosen), style="dim", soft_wrap=True)
        for name, value in estimate.lines():
            show.out.print(f"{name:<11} {escape(value)}", soft_wrap=True)

    def begin(self, step: int) -> None:
        """Open trackers and the progress bar of a run that has done `step` steps."""
        if not self._active:
            return
        if self._publisher is not None:
            self._publisher.begin(step)
        if "tensorboard" in self._recipe.trackers:
            self._tensorboard = _tensorboard(self._run, step)
        if "wandb" in self._recipe.trackers:
            self._wandb = _wandb(self._run, self._recipe)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Progress(*columns, console=show.err, disable=not show.err.is_terminal)
        self._bar.start()
        self._task = self._bar.add_task("training", total=self._recipe.steps, completed=step, note="")

    def step(self, line: dict[str, Any]) -> None:
        """Record one step."""
        if not self._active:
            return
        self._run.append(METRICS, line)
        if self._publisher is not None:
            self._publisher.step(line)
        tokens_per_s = line["tokens"] / max(line["wall_s"], 1e-9)
        note = f"loss {line['loss']:.3f} (ce {line['ce']:.3f}, kl {line['kl']:.3f})  {tokens_per_s:.0f} tokens/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=line["step"], note=note)
        every = max(1, self._recipe.steps // LINES)
        if not show.err.is_terminal and (line["step"] % every == 0 or line["step"] == 1):
            show.out.print(f"step {line['step']}/{self._recipe.steps}  {note}", soft_wrap=True)
        self._scalars("train", {**line, "tokens_per_s": tokens_per_s}, SCALARS)

    def validation(self, line: dict[str, Any]) -> None:
        """Record one validation."""
        if not self._active:
            return
        self._run.append(VALIDATION, line)
        if self._publisher is not None:
            self._publisher.validation(line)
        show.out.print(
            f"step {line['step']}  validation MER {line['mer']:.4f} on {counted(line['rows'], 'row')}", soft_wrap=True
        )
        self._scalars("validation", line, ("mer",))

    def end(self, *, finished: bool) -> None:
        """Publish whether all steps were made."""
        if self._publisher is not None:
            self._publisher.end("done" if finished else "stopped")

    def fail(self, error: BaseException) -> None:
        """Publish that the run ended with an error."""
        if self._publisher is not None:
            self._publisher.end("failed", error)

    def report(self) -> None:
        """Write the curves as a picture and the run's page."""
        if self._active:
            from trainer.run.run_report import write_report  # needs matplotlib, at the end of a run only

            write_report(self._run)

    def close(self) -> None:
        """Close the progress bar and the trackers."""
        if self._bar is not None:
            self._bar.stop()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _scalars(self, group: str, line: dict[str, Any], names: Sequence[str]) -> None:
        values = {f"{group}/{name}": line[name] for name in names}
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, line["step"])
        if self._wandb is not None:
            self._wandb.log(values, step=line["step"])


def student_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Teacher and student side by side: layers, which of the teacher's they are, parameters."""
    table = Table(title="Teacher → student", title_justify="left")
    for column in ("part", "layers", "copied from", "parameters"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for row in rows:
        copied_from = "–" if row["copied_from"] is None else _ranges(row["copied_from"])
        table.add_row(
            row["part"],
            f"{row['teacher_layers']} → {row['student_layers']}",
            copied_from,
            f"{row['teacher_parameters'] / 1e6:.1f} M → {row['student_parameters'] / 1e6:.1f} M",
        )
    theirs, ours = (sum(row[f"{side}_parameters"] for row in rows) for side in ("teacher", "student"))
    table.add_row("both", "", "", f"{theirs / 1e6:.1f} M → {ours / 1e6:.1f} M ({ours / theirs:.0%})")
    return table


def _ranges(layers: Sequence[int]) -> str:
    """0–5, or 0, 31 where layers were left out."""
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}–{layers[-1]}"
    return ", ".join(map(str, layers))


def _tensorboard(run: Run, step: int) -> Any:
    if find_spec("tensorboard") is None:
        raise ModelError(
            "the recipe's trackers include TensorBoard, which is not installed", hint=install_hint("train")
        )
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.folder / "tensorboard"), purge_step=step + 1)


def _wandb(run: Run, recipe: Recipe) -> Any:
    if find_spec("wandb") is None:
        raise ModelError(
            "the recipe's trackers include Weights & Biases, which is not installed", hint="pip install wandb"
        )
    wandb = import_module("wandb")
    return wandb.init(
        project="k2d", name=run.folder.name, dir=str(run.folder), id=f"{run.folder.name}-{recipe.key}",
        resume="allow", config=recipe.model_dump(mode="json"),
    )  # fmt: skip
