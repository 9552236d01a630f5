"""Finds or fetches the model of a reference, verifies it, converts it for the engine, and computes its digest."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2d.errors import ModelError, ModelNotFetched
from k2d.filehash import FileHashes
from k2d.whisper import hub, packaged
from k2d.whisper.cache import fresh_folder
from k2d.whisper.engines import ModelFormat, engine_kind

CT2_WEIGHTS: Final = "model.bin"
SINGLE_WEIGHTS: Final = "model.safetensors"
SHARD_INDEX: Final = "model.safetensors.index.json"
TOKENIZER: Final = "tokenizer.json"
RECORD: Final = "k2d.json"  # in a converted model: the digest of the original, and the hashes of the files
# files beside the weights that can change a label
COMPANIONS: Final = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    TOKENIZER,
    "vocabulary.txt",
    "vocabulary.json",
)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A folder with a model that an engine can load."""

    path: Path
    format: ModelFormat
    reference: str  # as the operator wrote it
    digest: str  # sha256 over the original weights, tokenizer and configuration, also of a converted model


def resolve(
    reference: str, *, engine: str, cache: Path, allow_downloads: bool, trust_cache: bool = True
) -> ResolvedModel:
    """Find the model that `reference` names, in the format `engine` needs.

        resolve("packaged:whisper-base", engine="ctranslate2", cache=Path("cache"), allow_downloads=True).path

    Args:
        reference: a packaged model (`k2d.whisper.packaged.MODELS`); a folder (CTranslate2: model.bin; transformers:
            config.json and safetensors); or a hub id such as `openai/whisper-large-v2`.
        engine: "ctranslate2" or "transformers".
        cache: folder for downloads, conversions and digests; created when missing.
        allow_downloads: if False, only models that are already here are found.
        trust_cache: whether files whose size, times and inode are those of an earlier call need not be hashed again.

    Raises:
        ModelError: the model cannot be found, fetched, verified or converted; the hint says what to do.
    """
    wanted = engine_kind(engine).format
    hashes = FileHashes(cache, trust=trust_cache)
    folder = _locate(reference, cache=cache, allow_downloads=allow_downloads, hashes=hashes)
    found = format_of(folder)
    digest = digest_of(folder, hashes)
    if found != wanted:
        folder = _converted(folder, to=wanted, digest=digest, cache=cache)
        format_of(folder)
        _verify_converted(folder, hashes)
    return ResolvedModel(folder, wanted, reference, digest)


def check(reference: str, *, cache: Path, allow_downloads: bool) -> None:
    """Check that there is a model, here or where `resolve` would fetch it from. Nothing is fetched or converted.

    Raises:
        ModelError: as `resolve`, as far as that can be known.
    """
    try:
        format_of(_locate(reference, cache=cache, allow_downloads=False, hashes=FileHashes(cache)))
    except ModelNotFetched:
        if not allow_downloads:
            raise
        if not reference.startswith(packaged.PREFIX):
            hub.check(reference)


def _locate(reference: str, *, cache: Path, allow_downloads: bool, hashes: FileHashes) -> Path:
    if reference.startswith(packaged.PREFIX):
        return packaged.fetch(reference, cache=cache, allow_downloads=allow_downloads, hashes=hashes)
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.is_absolute() or reference.startswith((".", "~")) or not hub.is_id(reference):
        raise ModelError(
            f"no model at {reference!r}",
            hint="give a folder, a hub id such as openai/whisper-large-v2, or packaged:whisper-base",
        )
    return hub.fetch(reference, cache=cache, allow_downloads=allow_downloads)


def format_of(folder: Path) -> ModelFormat:
    """The format of the model in a folder.

    Raises:
        ModelError: there is no model, or one of its files is missing or empty.
    """
    names = {path.name for path in folder.iterdir()}
    if CT2_WEIGHTS in names:
        _require(folder, CT2_WEIGHTS, "config.json", TOKENIZER)
        return "ctranslate2"
    if SINGLE_WEIGHTS in names or SHARD_INDEX in names:
        _require(folder, "config.json", TOKENIZER, *_safetensors(folder))
        return "transformers"
    raise ModelError(
        f"{folder} holds no model", hint=f"it needs {CT2_WEIGHTS} (CTranslate2) or {SINGLE_WEIGHTS} (transformers)"
    )


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights, sorted by name."""
    names = [CT2_WEIGHTS] if (folder / CT2_WEIGHTS).is_file() else _safetensors(folder)
    return [folder / name for name in sorted(names)]


def _safetensors(folder: Path) -> list[str]:
    if not (folder / SHARD_INDEX).is_file():
        return [SINGLE_WEIGHTS]
    try:
        index = json.loads((folder / SHARD_INDEX).read_text("utf-8"))
        return sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder / SHARD_INDEX} is damaged: {error}", hint="fetch the model again") from error


def _require(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{path} is missing", hint="fetch or convert the model again")
        if path.stat().st_size == 0:
            raise ModelError(f"{path} is empty", hint="fetch the model again")


def digest_of(folder: Path, hashes: FileHashes | None = None) -> str:
    """sha256 (hex) over names and contents of weights, tokenizer and configuration, without their folder.

    Raises:
        ModelError: a file cannot be read.
    """
    hashes = hashes or FileHashes(None)
    lines = [f"{path.name} {_hash(path, hashes)}\n" for path in _digested(folder)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digested(folder: Path) -> list[Path]:
    companions = (folder / name for name in COMPANIONS)
    return sorted([*weight_files(folder), *(path for path in companions if path.is_file())], key=lambda p: p.name)


def _hash(path: Path, hashes: FileHashes) -> str:
    try:
        return hashes.of_path(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}", hint="fetch the model again") from error


def _converted(folder: Path, *, to: ModelFormat, digest: str, cache: Path) -> Path:
    """The folder with the model converted for the other engine; converts it if that is not in the cache."""
    target = cache / "converted" / f"{digest[:32]}-{to}"  # conversions of 0.2 have shorter names, and no record
    if target.is_dir():
        return target
    # imported here because it needs tokenizers, which come with an engine; finding a model needs none
    from k2d.whisper import conversion

    convert: Callable[[Path, Path], None] = (
        conversion.to_transformers if to == "transformers" else conversion.to_ctranslate2
    )
    with fresh_folder(target) as work:
        convert(folder, work)
        hashes = FileHashes(None)
        record = {path.name: _hash(path, hashes) for path in sorted(work.iterdir())}
        (work / RECORD).write_text(json.dumps({"digest": digest, "sha256": record}, indent=1), "utf-8")
    return target


def _verify_converted(folder: Path, hashes: FileHashes) -> None:
    """Check that a converted model has the bytes that were recorded when it was converted.

    Raises:
        ModelError: it has not.
    """
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))["sha256"]
        names = {path.name for path in folder.iterdir()} - {RECORD}
        changed = [name for name in sorted(names | set(record)) if not _is(folder / name, record.get(name), hashes)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _changed(folder / RECORD, folder) from error
    if changed:
        raise _changed(folder / changed[0], folder)


def _is(path: Path, sha256: str | None, hashes: FileHashes) -> bool:
    return sha256 is not None and path.is_file() and _hash(path, hashes) == sha256


def _changed(path: Path, folder: Path) -> ModelError:
    return ModelError(
        f"{path} is not the file that was converted: it was changed since, or is damaged",
        hint=f"remove {folder}: the model is converted again",
    )
