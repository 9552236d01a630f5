"""`k2d doctor`: checks what works on this machine, and says what to do about the rest."""

import asyncio
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import typer
from rich.markup import escape

from k2d.cli import show
from k2d.cli.base import SERVING, Json, app, settings
from k2d.client.http import Client
from k2d.errors import K2DError, ModelNotFetched, install_hint
from k2d.inference.address import is_address, plain
from k2d.inference.open import open_transcriber
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators import PERTURBED, kind_of, validators_of
from k2d.whisper.resolve import resolve
from k2d.wording import in_bytes
from services.local import redis_checks
from services.local.extras import Extra, PartOfExtra, describe, extras
from services.local.redis_server import find_binary

log = structlog.get_logger()

LOW_DISK_BYTES: Final = 2 * 1024**3
CACHE_HINT: Final = "set K2D_CACHE to a folder of yours: models are fetched and converted into it"
TEMPORARY_HINT: Final = "set TMPDIR to a folder with room, and make it: what is sent and decoded is put there meanwhile"


Check = Callable[[Settings], str]


class FindingState(StrEnum):
    """How a check ended."""

    WORKS = "works"
    NOT_FETCHED = "to fetch"  # it can be downloaded, and is when it is first used
    ABSENT = "absent"  # something optional is not there
    BROKEN = "broken"


STYLES: Final = {
    FindingState.WORKS: "green",
    FindingState.NOT_FETCHED: "cyan",
    FindingState.ABSENT: "yellow",
    FindingState.BROKEN: "red",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: how it ended, whether it is needed, what was seen, what to do."""

    check: str
    ok: bool
    needed: bool
    seen: str
    advice: str = ""
    state: FindingState = FindingState.WORKS


@app.command(rich_help_panel=SERVING)
def doctor(as_json: Json = False) -> None:
    """Check this machine: packages, store, Redis, models, disk. Ends with status 1 when something needed is broken."""
    current = settings()
    findings = [_run_check(name, needed, check, current) for name, needed, check in _checks(current)]
    if as_json:
        show.dump([asdict(finding) for finding in findings])
    for finding in () if as_json else findings:
        style = STYLES[finding.state]
        show.out.print(f"[{style}]{finding.state:<8}[/] {finding.check:<22} {escape(finding.seen)}", soft_wrap=True)
        if finding.advice:
            show.out.print(f"{'':<9}[dim]→ {escape(finding.advice)}[/]", soft_wrap=True)
    if any(finding.needed and finding.state is FindingState.BROKEN for finding in findings):
        raise typer.Exit(1)


def _checks(settings: Settings) -> list[tuple[str, bool, Check]]:
    """(name, whether it is needed, check) of all checks; more of a Redis that the settings name, if it answers."""
    checks = list(CHECKS)
    checks += [(f"extra: {extra.name}", False, partial(_extra, extra)) for extra in extras()]
    if "redis_url" in settings.model_fields_set:
        try:
            redis_checks.answers(settings)
        except K2DError:
            return checks  # the check of this name says so
        checks += [(name, needed, partial(_redis_check, check)) for name, needed, check in redis_checks.CHECKS]
    return checks


class BrokenFolder(K2DError):
    """A folder is there that cannot be used: that is broken, be it needed or not."""


def _run_check(name: str, needed: bool, check: Check, settings: Settings) -> Finding:
    state = FindingState.BROKEN if needed else FindingState.ABSENT
    try:
        return Finding(name, True, needed, check(settings))
    except ModelNotFetched as error:
        try:
            _cache(settings)
        except K2DError as cache_error:
            seen = f"not fetched yet, and the cache cannot take it: {cache_error.message}"
            return Finding(name, False, needed, seen, cache_error.hint or "", state)
        if settings.allow_downloads:
            advice = "it is fetched when it is first used; `k2d models` lists what is here"
            return Finding(name, False, needed, "not fetched yet", advice, FindingState.NOT_FETCHED)
        return Finding(name, False, needed, error.message, error.hint or "", state)
    except (BrokenFolder, PartOfExtra) as error:
        return Finding(name, False, needed, error.message, error.hint or "", FindingState.BROKEN)
    except K2DError as error:
        return Finding(name, False, needed, error.message, error.hint or "", state)
    except OSError as error:
        seen = f"{error.strerror or type(error).__name__}" + (f": {error.filename}" if error.filename else "")
        return Finding(name, False, needed, seen, "look at that file or folder, and who may read it", state)
    except Exception as error:
        # no message: it may have a secret of the settings in it
        advice = f"run it again with K2D_LOG_LEVEL=debug, and report it: {type(error).__name__} was not foreseen"
        log.debug("check failed", check=name, exc_info=True)
        return Finding(name, False, needed, f"the check failed ({type(error).__name__})", advice, FindingState.BROKEN)


def _extra(extra: Extra, _: Settings) -> str:
    return describe(extra)


def _redis_check(check: redis_checks.RedisCheck, settings: Settings) -> str:
    return redis_checks.run(settings, check)


def _python(_: Settings) -> str:
    return f"{sys.version.split()[0]}, {os.cpu_count()} cores"


def _package(module: str, extra: str) -> Check:
    def check(_: Settings) -> str:
        if importlib.util.find_spec(module) is None:
            raise K2DError(f"{module} is not installed", hint=install_hint(extra))
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:  # OSError: a shared library is missing
            raise K2DError(
                f"{module} is installed and cannot be loaded: {error}", hint=f"install it again; {install_hint(extra)}"
            ) from error
        return f"{module} can be loaded"

    return check


def _store(settings: Settings) -> str:
    folder = _local(settings.store)
    if folder is None:
        Lake(settings.store).check()
        return f"{settings.store} can be read and written"
    is_there = _try_folder(folder, "set K2D_STORE to a folder of yours")
    if not is_there:
        return f"{settings.store} does not exist yet; the first batch makes it"
    Lake(settings.store).check()
    return f"{settings.store} can be read and written"


def _disk(settings: Settings) -> str:
    folder = _local(settings.store)
    if folder is None:
        return "the store is remote"
    try:
        _try_folder(folder, "")
    except K2DError:
        return "not known: the store cannot be written"
    return _room(
        _existing(folder), "labeling an hour of audio stores about 60 MB of FLAC: free space, or set K2D_STORE"
    )


def _cache(settings: Settings) -> str:
    is_there = _try_folder(settings.cache, CACHE_HINT)
    return f"{settings.cache} can be written" if is_there else f"{settings.cache} does not exist yet"


def _temporary_files(settings: Settings) -> str:
    """Uploads, decoders and exports need room for what they have in hand."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # Python tries several folders
        raise K2DError("no folder for temporary files can be written", hint=TEMPORARY_HINT) from error
    wanted = os.environ.get("TMPDIR")
    if wanted and not (os.path.exists(wanted) and os.path.samefile(wanted, folder)):
        raise K2DError(f"TMPDIR is {wanted}, which cannot be written; {folder} is used", hint=TEMPORARY_HINT)
    store = _local(settings.store)
    if store is not None and os.stat(_existing(store)).st_dev == os.stat(folder).st_dev:
        return f"{folder} is on the disk of the store"  # which another check looks at
    return _room(folder, TEMPORARY_HINT)


def _try_folder(folder: Path, hint: str) -> bool:
    """Try to write a file into a folder, or into the one it would be made in; nothing is left there. False if the
    folder does not exist.

    Raises:
        K2DError: it is a file, or cannot be written.
    """
    place = _existing(folder)
    if not os.path.isdir(place):
        inside = "" if place == folder.absolute() else f", so {folder} cannot be made"
        raise BrokenFolder(f"{place} is a file, not a folder{inside}", hint=hint)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        what = "written" if place == folder.absolute() else f"made: {place} cannot be written"
        raise BrokenFolder(f"{folder} cannot be {what} ({error.strerror})", hint=hint) from error
    return place == folder.absolute()


def _room(folder: Path, hint: str) -> str:
    free = shutil.disk_usage(folder).free
    if free < LOW_DISK_BYTES:
        raise K2DError(f"{in_bytes(free)} free at {folder}", hint=hint)
    return f"{in_bytes(free)} free at {folder}"


def _local(store: str) -> Path | None:
    """The folder of a store; None if it is remote."""
    protocol, separator, path = store.rpartition("://")
    return Path(path).absolute() if not separator or protocol in ("file", "local") else None


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    absolute = path.absolute()
    # os.path: pathlib raises where a folder may not be looked into
    return next(folder for folder in (absolute, *absolute.parents) if os.path.exists(folder))


def _redis(settings: Settings) -> str:
    if "redis_url" in settings.model_fields_set:
        return redis_checks.answers(settings)
    return f"embedded: {find_binary()}"


def _api(settings: Settings) -> str:
    if not Client(settings.api_url).is_up():
        raise K2DError(
            f"no API answers at {settings.api_url}", hint="`k2d up` starts one; commands work without it too"
        )
    return f"answers at {settings.api_url}"


def _engine(settings: Settings) -> str:
    if is_address(settings.teacher):
        return "not needed here: the teacher is on a server"
    return _package("ctranslate2", "ct2")(settings)


def _teacher(settings: Settings) -> str:
    return _model(settings.teacher, settings)


def _validator(settings: Settings) -> str:
    return "; ".join(_describe(name, settings) for name in validators_of(settings.validator))


def _describe(name: str, settings: Settings) -> str:
    """Try a validator where its module can (`describe`); else find its model."""
    kind = kind_of(name)
    if describe := getattr(importlib.import_module(kind.module), "describe", None):
        described: str = asyncio.run(describe(name, settings))
        return described
    if kind.is_model:
        return _model(name, settings)
    return f"{name}: the teacher on perturbed audio, a fallback" if name == PERTURBED else name


def _endpoints(settings: Settings) -> str:
    """Try the endpoints that batches may name."""
    names = [name for name in settings.openai_validators if name not in validators_of(settings.validator)]
    return "; ".join(_describe(name, settings) for name in names) or "none are named"


def _model(reference: str, settings: Settings) -> str:
    if is_address(reference):
        return asyncio.run(_server(reference, settings))
    model = resolve(
        plain(reference), engine=settings.engine, cache=settings.cache, allow_downloads=False, trust_cache=False
    )
    return f"{reference}: {model.format}, digest {model.digest[:16]}"


async def _server(address: str, settings: Settings) -> str:
    """The model that the servers at an address have; they are asked once."""
    server = await open_transcriber(address, settings.model_copy(update={"server_patience_s": 0.0}))
    await server.close()
    return f"{address}: {server.model.reference} ({server.model.fingerprint}) on {server.model.device}"


def _golden(settings: Settings) -> str:
    if settings.golden == "off":
        raise K2DError(
            "K2D_GOLDEN=off: inference servers are ready whatever their model writes",
            hint="set it to on, unless the model is of other languages than Mandarin and English",
        )
    return "inference servers must get the golden clips right"


def _gpu(_: Settings) -> str:
    if shutil.which("nvidia-smi") is None:
        raise K2DError("no NVIDIA driver", hint="the CPU is used: fine for Whisper base, slow for large models")
    return "an NVIDIA driver is there"


CHECKS: Final[tuple[tuple[str, bool, Check], ...]] = (
    ("Python", True, _python),
    ("engine: CTranslate2", True, _engine),
    ("store", True, _store),
    ("disk", True, _disk),
    ("cache", False, _cache),
    ("temporary files", False, _temporary_files),
    ("Redis", False, _redis),
    ("teacher", True, _teacher),
    ("validator", True, _validator),
    ("validators of batches", False, _endpoints),
    ("golden clips", False, _golden),
    ("API answers", False, _api),
    ("GPU", False, _gpu),
)
