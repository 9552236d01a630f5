"""`k2d demo`: labels the sample audio over HTTP with real weights, freezes a dataset and distils a student from it."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from k2d.cli import show
from k2d.cli.base import SERVING, app
from k2d.cli.datasets import show_manifest
from k2d.cli.progress import batch_bars
from k2d.documents import BatchOptions
from k2d.errors import NotFound
from k2d.logs import setup
from k2d.settings import Settings, load
from k2d.validators import PERTURBED, validators_of
from k2d.whisper.resolve import resolve
from k2d.wording import counted, in_bytes
from services.local.redis_server import free_port
from services.local.stack import Stack

LOAD: Final = """from datasets import load_dataset  # pip install datasets
rows = load_dataset("parquet", data_files="{shards}", split="train")
rows.select_columns(["text", "duration_s"])[0]"""

STEPS: Final = 36  # enough to show that training, evaluation and export work
RECIPE: Final = (f"steps={STEPS}", "batch=4", "micro_batch=4", "keep_encoded_gib=1", "warmup_steps=5", "trackers=[]")


@app.command(rich_help_panel=SERVING)
def demo(
    audio: Annotated[Path, typer.Argument(help="Recordings to label.")] = Path("examples/audio"),
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its store and log.")] = Path("demo-output"),
) -> None:
    """Start everything, post the sample audio as a batch, freeze what the policy keeps, and distil a student.

    What it makes, some hundred MB, lies in one folder (--folder), and may be removed at any time.
    """
    if not audio.is_dir():
        raise NotFound(
            f"no folder {audio}", hint="run it in the root of a clone of k2d, or name a folder of recordings"
        )
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)  # a demo starts from nothing
    settings = load(store=str(store.absolute()), port=free_port(), log_level=os.environ.get("K2D_LOG_LEVEL", "info"))
    setup(settings)
    show.out.rule("[bold]1. weights", align="left")
    model = resolve(
        settings.teacher, engine=settings.engine, cache=settings.cache, allow_downloads=settings.allow_downloads
    )
    show.out.print(f"teacher: {settings.teacher} (digest {model.digest[:16]}…), verified")
    show.out.print(f"validator: {settings.validator}" + _fallback_note(settings))
    show.out.rule("[bold]2. Redis, API, worker", align="left")
    with Stack(settings, workers=1, log_file=folder / "k2d.log") as stack:
        show.out.print(f"API: {stack.url}/docs   log: {folder / 'k2d.log'}")
        _walk(stack, audio, store)
    _distil(settings, audio, folder)
    size = in_bytes(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    show.out.print(
        f"the demo left {size} in {folder}; remove it with: rm -r {shlex.quote(str(folder))}", soft_wrap=True
    )


def _fallback_note(settings: Settings) -> str:
    if PERTURBED not in validators_of(settings.validator):
        return ""
    return " — the fallback where no second model is at hand: the same weights, on perturbed audio"


def _walk(stack: Stack, audio: Path, store: Path) -> None:
    client = stack.client()
    options = BatchOptions(name="demo")
    paths = [str(audio)]
    show.out.rule("[bold]3. POST /v1/batches", align="left")
    forecast = client.forecast(paths, options)
    show.out.print(
        f"forecast: {counted(forecast.recordings, 'recording')}, {show.forecast_line(forecast)} ({forecast.basis})",
        soft_wrap=True,
    )
    with batch_bars() as on_status:
        status = client.label(paths, options, wait=True, on_status=on_status)
    show.out.rule("[bold]4. chunks and ledger", align="left")
    show.out.print(show.chunk_table(client.chunks("demo")))
    show.out.print(show.quarantine_table(status.quarantined))
    show.out.print(show.ledger_table(status.ledger))
    show.out.rule("[bold]5. a dataset", align="left")
    manifest = client.freeze("demo-v1", ["demo"])
    show_manifest(manifest)
    shards = store / "datasets" / "demo-v1" / manifest.digest / "*.parquet"
    show.out.print(f"it is here: {shards.parent}", soft_wrap=True)
    show.out.print("load it with:")
    show.out.print(escape(LOAD.format(shards=shards)), style="cyan", soft_wrap=True)
    show.out.print(f"look further: K2D_STORE={store} .venv/bin/k2d curve demo   (or chunks, status, export …)")


def _distil(settings: Settings, audio: Path, folder: Path) -> None:
    """Train, evaluate and export with the commands of the guides."""
    environment = {**os.environ, "K2D_STORE": settings.store}
    run, evaluation, exported = folder / "run", folder / "eval", folder / "student"
    for old in (run, evaluation, exported):
        shutil.rmtree(old, ignore_errors=True)
    manifest = audio / "manifest.jsonl"
    student = run / "student"
    show.out.rule(f"[bold]6. a student, from {STEPS} steps on that dataset", align="left")
    changes = [part for change in RECIPE for part in ("--set", change)]
    _k2d(["train", "demo-v1", "--out", str(run), *changes], environment)
    show.out.rule("[bold]7. beside its teacher, and as a model for CTranslate2", align="left")
    models = [part for model in (settings.teacher, str(student)) for part in ("--model", model)]
    _k2d(["eval", str(manifest), *models, "--no-long-form", "--out", str(evaluation)], environment)
    # a student after so few steps may loop, and any rounding changes a loop: the drift is shown, but fails nothing
    _k2d(["convert", str(run), str(exported), "--format", "ctranslate2", "--max-drift", "100"], environment)
    show.out.print(
        f"So short a run only shows that everything works: {STEPS} steps on two minutes of speech teach these "
        "sentences, not a language. The paper takes 120,000 steps of 256 chunks (docs/training.md).",
        soft_wrap=True,
    )
    show.out.print(f"serve it: K2D_TEACHER={exported} .venv/bin/k2d serve teacher", soft_wrap=True)
    show.out.print(
        f"see and hear all of it in a browser: K2D_STORE={folder / 'store'} .venv/bin/k2d up, then "
        f"http://127.0.0.1:{load().port}/",
        soft_wrap=True,
    )


def _k2d(arguments: list[str], environment: dict[str, str]) -> None:
    """Show a k2d command and run it; when it fails the demo ends with its status."""
    show.out.print(f"[cyan]$ k2d {escape(shlex.join(arguments))}[/]", soft_wrap=True)
    sys.stdout.flush()
    finished = subprocess.run([sys.executable, "-m", "k2d.cli", *arguments], env=environment, check=False)
    if finished.returncode:
        raise typer.Exit(finished.returncode)
