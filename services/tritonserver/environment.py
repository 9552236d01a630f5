"""Makes the bundled Triton's own virtual environment, once: the server's wheel, the engine, numpy before 2.

The server comes from nvidia-pytriton's wheel (Apache-2.0), which carries tritonserver with the Python backend.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

import structlog

from k2d.whisper.cache import writable
from services.tritonserver.runtime import STUB, Runtime, TritonFailed, supported

VERSION: Final = "2.51.0"  # of the tritonserver in nvidia-pytriton 0.7.0
INSTALL_S: Final = 1200  # about 150 MB of wheels
COMPLETE: Final = "complete"  # this file is written last: an environment without it is made anew

log = structlog.get_logger()


def ensure(cache: Path) -> Runtime:
    """The bundled server, installed under `cache` when it is not there. Several starts at once install it once.

        ensure(load().cache).binary

    Raises:
        TritonFailed: this machine cannot run it, or the packages cannot be fetched.
        ModelError: the cache cannot be written.
    """
    supported()
    requirements = files("services.tritonserver") / "requirements.txt"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = hashlib.sha256(requirements.read_bytes() + sys.base_prefix.encode()).hexdigest()[:12]
    folder = cache / "triton" / f"{VERSION}-py{python}-{name}"
    with writable(folder), _lock(folder.with_name(f"{folder.name}.lock")):
        if not _is_complete(folder):
            shutil.rmtree(folder, ignore_errors=True)
            with as_file(requirements) as path:
                _install(folder, path, python=python)
    return _runtime(folder, python)


def _is_complete(folder: Path) -> bool:
    python = folder / "bin" / "python"  # a link: the interpreter it leads to may be gone
    return (folder / COMPLETE).is_file() and python.is_file()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another start that installs Triton", lock=str(path))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(folder: Path, requirements: Path, *, python: str) -> None:
    started = time.monotonic()
    log.info("installing Triton", version=VERSION, into=str(folder))
    _run([sys.executable, "-m", "venv", str(folder)], hint="Debian, Ubuntu: apt install python3-venv")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # --no-deps: the file names everything, and leaves out what the wheel asks for and the bare server does not use
    _run(
        [*pip, "--no-deps", "--require-hashes", "--only-binary=:all:", "--requirement", str(requirements)],
        hint="check the package index settings of pip",
    )
    server = _site(folder, python) / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    stub = server / "python_backend_stubs" / python / STUB
    if not stub.is_file():
        raise TritonFailed(f"the bundled Triton has no Python {python}", hint="use Python 3.11 or 3.12")
    shutil.copy2(stub, backend / STUB)
    for program in (backend / STUB, server / "bin" / "tritonserver"):
        program.chmod(0o755)
    (folder / COMPLETE).write_text(f"{VERSION}\n", "utf-8")
    log.info("Triton installed", seconds=round(time.monotonic() - started, 1))


def _run(command: list[str], *, hint: str) -> None:
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise TritonFailed(f"Triton's packages were not installed within {INSTALL_S} s", hint=hint) from error
    if finished.returncode:
        output = (finished.stderr.strip() or finished.stdout.strip() or "no output").splitlines()
        raise TritonFailed(f"Triton's environment cannot be made: {output[-1]}", hint=hint)


def _site(folder: Path, python: str) -> Path:
    return folder / "lib" / f"python{python}" / "site-packages"


def _runtime(folder: Path, python: str) -> Runtime:
    """The server in this environment, with the interpreter's libraries first: a system libpython crashes the stub."""
    site = _site(folder, python)
    libraries = [sysconfig.get_config_var("LIBDIR"), str(site / "nvidia_pytriton.libs")]
    path = f"{folder / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    return Runtime(
        site / "pytriton" / "tritonserver" / "bin" / "tritonserver",
        folder / "backends",
        VERSION,
        {"VIRTUAL_ENV": str(folder), "PATH": path, "LD_LIBRARY_PATH": ":".join(filter(None, libraries))},
    )
