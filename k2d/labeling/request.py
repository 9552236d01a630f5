"""Builds a batch from a request: checks the request, and makes the batch's id from its content."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from k2d.documents import BatchOptions
from k2d.errors import BadRequest
from k2d.inference.address import SERVED, is_address, plain, split
from k2d.keys import digest
from k2d.schema import Batch, DecodeOptions, LongformOptions, Source
from k2d.settings import Settings
from k2d.validators import PERTURBED, address_of, models_of, validators_of
from k2d.validators.names import SEPARATOR
from k2d.whisper.hub import is_id
from k2d.whisper.languages import check_language
from k2d.whisper.packaged import NAME as BASE
from k2d.whisper.packaged import PREFIX

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PACKAGED: Final = (PREFIX + BASE,)


def make_batch(sources: Sequence[Source], options: BatchOptions, settings: Settings, *, trusted: bool = False) -> Batch:
    """Build the batch of these sources and options. The same sources and options always have the same id.

        batch = make_batch([sources.from_path("talk.m4a")], BatchOptions(name="talks"), settings)

    Args:
        options: what they leave out is taken from `settings`.
        trusted: the request comes from this machine, so `allowed_sources` does not apply.

    Raises:
        BadRequest: no sources, a malformed name, an unknown language, no validator, a malformed model reference, or
            the same model as teacher and validator.
    """
    teacher, validator, longform = check_options(options, settings)
    if not sources:
        raise BadRequest("a batch needs at least one recording", hint="send files, or a list of URIs in `sources`")
    # duplicates are one recording; the order of the files does not matter
    unique = tuple(sorted({(source.key, source.name): source for source in sources}.values(), key=_order))
    identity = digest("batch", [(source.key, source.name) for source in unique], teacher, validator, longform)
    return Batch(
        id=f"b_{identity[:16]}",
        name=options.name or f"b_{identity[:16]}",
        sources=unique,
        teacher=teacher,
        validator=validator,
        options=longform,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        trusted=trusted,
    )


def check_options(options: BatchOptions, settings: Settings) -> tuple[str, str, LongformOptions]:
    """Check the options of a batch before any file is looked at; returns teacher, validator and decoding options.

    Raises:
        BadRequest: as `make_batch`, except for the sources.
    """
    check_name(options.name)
    teacher = _served(plain(options.teacher or settings.teacher), settings)
    validators = validators_of(options.validator or settings.validator)
    validator = SEPARATOR.join(_served(plain(name), settings) for name in validators)
    for reference in (teacher, *models_of(validator)):
        if reference not in SERVED:
            check_model(reference)
    if teacher in models_of(validator):
        raise BadRequest(
            f"teacher and validator are the same model: {teacher}",
            hint=f"name a second model as validator, or {PERTURBED!r}",
        )
    longform = LongformOptions(
        decode=DecodeOptions(language=check_language(options.language or settings.language)),
        condition_on_previous_text=_or(options.condition_on_previous_text, settings.condition_on_previous_text),
        vad=_or(options.vad, settings.vad),
    )
    return teacher, validator, longform


def check_name(name: str | None) -> None:
    """Check that a name can be used in file names, URLs and shell commands.

    Raises:
        BadRequest: it cannot.
    """
    if name is not None and not NAME.fullmatch(name):
        raise BadRequest(
            f"not a valid name: {name[:120]!r}",
            hint="up to 100 letters, digits, '.', '_' and '-', a letter or digit first",
        )


def check_model(reference: str) -> None:
    """Check the form of a model reference. Whether a hub has the model is only known when a worker fetches it.

    Raises:
        BadRequest: it is not a hub id, an existing folder or a packaged model.
    """
    if reference in PACKAGED or Path(reference).is_dir():
        return
    local = reference.startswith(("/", "./", "../", "~"))
    if local or not is_id(reference):
        raise BadRequest(
            f"unknown model: {reference[:200]!r}" + (" (no such folder)" if local else ""),
            hint="a hub id (openai/whisper-large-v2), a local folder, or packaged:whisper-base; see `k2d models`",
        )


def _served(reference: str, settings: Settings) -> str:
    """Replace an address by the name of its setting, since servers may move while a batch waits.

    Raises:
        BadRequest: the address is not in the settings. A request must not choose the servers that workers connect to.
    """
    if not is_address(reference):
        return reference
    split(reference)
    for name, setting in SERVED.items():
        if reference == address_of(getattr(settings, setting)):
            return name
    raise BadRequest(
        f"{reference[:200]!r} is not an inference server of this installation",
        hint="servers are named in K2D_TEACHER and K2D_VALIDATOR only",
    )


def _or(value: bool | None, default: bool) -> bool:
    return default if value is None else value


def _order(source: Source) -> tuple[str, str]:
    return source.name, source.key
