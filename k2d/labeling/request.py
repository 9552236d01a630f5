"""Builds a batch from a request: checks the request, and makes the batch's id from its content."""

import importlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from k2d.documents import BatchOptions
from k2d.errors import BadRequest, ModelRefused
from k2d.inference.address import SERVED, is_address, plain, split
from k2d.keys import digest
from k2d.labeling.terms import terms_in
from k2d.schema import EACH, AudioOptions, Batch, DecodeOptions, LongformOptions, Source
from k2d.settings import Settings
from k2d.sources import channel_key
from k2d.text.terms import terms_prompt
from k2d.validators import PERTURBED, address_of, models_of, validators_of
from k2d.validators.names import OPENAI, SEPARATOR, SHERPA, kind_of
from k2d.whisper import packaged
from k2d.whisper.hub import is_id
from k2d.whisper.languages import check_language

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PATHS: Final = ("/", "./", "../", "~")
OPENED_AT_ONCE: Final = 8  # files whose headers are read at the same time


def make_batch(sources: Sequence[Source], options: BatchOptions, settings: Settings, *, trusted: bool = False) -> Batch:
    """Build the batch of these sources and options. The same sources and options always have the same id.

        batch = make_batch([sources.from_path("talk.m4a")], BatchOptions(name="talks"), settings)

    Args:
        options: what they leave out is taken from `settings`.
        trusted: the request comes from this machine, so `allowed_sources` does not apply.

    Raises:
        BadRequest: no sources, a malformed name, an unknown language, no validator, a malformed model reference, the
            same model as teacher and validator, an endpoint that is not in the settings, or terms without a term.
    """
    teacher, validator, longform = check_options(options, settings)
    if not sources:
        raise BadRequest("a batch needs at least one recording", hint="send files, or a list of URIs in `sources`")
    unique = _unique(sources)
    audio_options = AudioOptions(
        channels=options.channels or settings.channels,
        keep_partial=_or(options.keep_partial, settings.keep_partial),
    )
    batch_id = _id(unique, teacher, validator, longform, audio_options)
    return Batch(
        id=batch_id,
        name=options.name or batch_id,
        sources=unique,
        teacher=teacher,
        validator=validator,
        options=longform,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        trusted=trusted,
        audio=audio_options,
    )


def extended(batch: Batch, sources: Sequence[Source]) -> Batch:
    """The batch of a batch's sources and those of `sources` whose content it does not have; the same one if it has all.

        extended(lectures, [sources.from_path("one more.m4a", hashes=hashes)])

    Name and options stay: what is labeled already is found by its keys, and not labeled again.
    """
    have = {source.key for source in batch.sources}
    new = [source for source in sources if source.key not in have]
    if not new:
        return batch
    unique = _unique([*batch.sources, *new])
    batch_id = _id(unique, batch.teacher, batch.validator, batch.options, batch.audio)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(batch, id=batch_id, sources=unique, created_at=created_at)


def _unique(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Duplicates are one recording; the order of the files does not matter."""
    return tuple(sorted({(source.key, source.name): source for source in sources}.values(), key=_order))


def _id(
    sources: Sequence[Source], teacher: str, validator: str, longform: LongformOptions, audio_options: AudioOptions
) -> str:
    changed = () if audio_options == AudioOptions() else (audio_options,)  # the default's ids are those of version 0.1
    # in the order of the versions that had no channels, so that equal batches have equal ids
    names = sorted(((source.key, source.name) for source in sources), key=lambda pair: (pair[1], pair[0]))
    return f"b_{digest('batch', names, teacher, validator, longform, *changed)[:16]}"


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
    for name in validators:
        if check := getattr(importlib.import_module(kind_of(name).module), "check", None):
            check(name, settings)
    if teacher in models_of(validator):
        raise BadRequest(
            f"teacher and validator are the same model: {teacher}",
            hint=f"name a second model as validator, or {PERTURBED!r}",
        )
    language = check_language(options.language or settings.language)
    prompt = terms_prompt(terms_in(options, settings), language=language)
    longform = LongformOptions(
        decode=DecodeOptions(
            language=language, beam_size=options.beam_size or settings.beam_size, initial_prompt=prompt
        ),
        condition_on_previous_text=_or(options.condition_on_previous_text, settings.condition_on_previous_text),
        vad=_or(options.vad, settings.vad),
        short_context=True,  # not an option: batches of earlier versions are without, and keep their keys
        rescore=_or(options.rescore, settings.rescore),
    )
    return teacher, validator, longform


def split_channels(
    sources: Sequence[Source],
    options: BatchOptions,
    settings: Settings,
    *,
    channels_of: Callable[[Source], int | None],
) -> list[Source]:
    """One source for each channel, NAME#1 …, where that is asked for; other sources stay as they are.

        split_channels([talk], BatchOptions(channels="each"), settings, channels_of=lambda _: 2)  # talk.wav#1, #2

    A file with one channel is one source, with the key that it has without this option. `channels_of` opens a file, and
    is called in threads; a file that it cannot open (None) is not split, and is quarantined later.
    """
    if (options.channels or settings.channels) != EACH:
        return list(sources)
    with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
        counts = list(pool.map(channels_of, sources))
    return [part for source, count in zip(sources, counts, strict=True) for part in _channels(source, count or 1)]


def _channels(source: Source, count: int) -> list[Source]:
    if count == 1:
        return [source]
    return [
        replace(source, name=f"{source.name}#{number}", key=channel_key(source.key, number), channel=number)
        for number in range(1, count + 1)
    ]


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


def check_choice(options: BatchOptions, settings: Settings) -> None:
    """Check that a client of the API may choose the models in its request. Looks at no folder and asks no hub.

    Addresses and endpoints of servers are checked by `make_batch`: they are never a client's choice.

    Raises:
        ModelRefused: a model is neither configured nor in K2D_ALLOWED_MODELS (or packaged, where that is empty).
        BadRequest: a name that no model can have, or as `validators_of`.
    """
    configured = (settings.teacher, *validators_of(settings.validator))
    allowed = {plain(name) for name in (*configured, *(settings.allowed_models or packaged.MODELS))}
    chosen = [options.teacher] if options.teacher else []
    if options.validator:
        chosen += [name for name in validators_of(options.validator) if kind_of(name).is_model or _is_folder(name)]
    for name in map(plain, chosen):
        if name in allowed or (is_address(name) and not name.startswith(SHERPA)):
            continue
        if not (is_id(name) or _is_folder(name)):
            raise BadRequest(f"unknown model: {name[:200]!r}", hint=f"models are: {', '.join(sorted(allowed))}")
        raise ModelRefused(
            f"clients may not choose the model {name[:200]!r}",
            hint="leave it out, or ask the operator to add it to K2D_ALLOWED_MODELS",
        )


def _is_folder(name: str) -> bool:
    return name.startswith((SHERPA, *_PATHS))


def check_model(reference: str) -> None:
    """Check the form of a model reference. Whether a hub has the model is only known when a worker fetches it.

    Raises:
        BadRequest: it is not a hub id, an existing folder or a packaged model.
    """
    if reference in packaged.MODELS or Path(reference).is_dir():
        return
    local = reference.startswith(_PATHS)
    if local or not is_id(reference):
        raise BadRequest(
            f"unknown model: {reference[:200]!r}" + (" (no such folder)" if local else ""),
            hint=f"a hub id (openai/whisper-large-v2), a folder, or {', '.join(packaged.MODELS)}; see `k2d models`",
        )


def _served(reference: str, settings: Settings) -> str:
    """Replace an address by the name of its setting, since servers may move while a batch waits.

    Raises:
        BadRequest: the address is not in the settings. A request must not choose the servers that workers connect to.
    """
    if not is_address(reference) or reference.startswith(OPENAI):
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


def _order(source: Source) -> tuple[str, str, int, str]:
    """By name; channels of one file together, in their order (#2 before #10)."""
    if source.channel is None:
        return source.name, "", 0, source.key
    return source.name.removesuffix(f"#{source.channel}"), source.uri, source.channel, source.key
