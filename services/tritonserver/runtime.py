"""A tritonserver binary, and the folders and variables that it needs to run."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from k2d.errors import ModelError

NVIDIA_HOME: Final = Path("/opt/tritonserver")  # where NVIDIA's image has it
STUB: Final = "triton_python_backend_stub"


class TritonFailed(ModelError):
    """Triton cannot be installed, does not start, or ended by itself."""

    code = "triton_failed"


@dataclass(frozen=True, slots=True)
class Runtime:
    """A tritonserver with its Python backend, and the environment variables that its process needs beside ours."""

    binary: Path
    backends: Path  # holds python/
    version: str  # of the server; empty when unknown
    environment: dict[str, str] = field(default_factory=dict)
    site: str = ""  # a folder of packages that the stub's own Python would not find

    def variables(self) -> dict[str, str]:
        """The whole environment of the server's process, without the settings."""
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
        # an embedded Python writes what its locale can; in a container's ASCII, Chinese in logs would be escaped
        fixed = {"LC_ALL": "C.UTF-8"}
        version = {"TRITON_SERVER_VERSION": self.version} if self.version else {}
        return {**inherited, **fixed, **version, **self.environment}

    def check(self) -> None:
        """Check for missing libraries before the start: without libpython the server would hang for ever.

        Raises:
            TritonFailed: no stub for this Python, or a library of the server or the stub is missing.
        """
        stub = self.backends / "python" / STUB
        for program in (self.binary, stub):
            if not program.is_file():
                raise TritonFailed(
                    f"{program} is missing",
                    hint="the installation is incomplete: remove its folder in the cache, or get the image again",
                )
            if missing := _missing_libraries(program, self.variables()):
                raise TritonFailed(
                    f"{program.name} needs {', '.join(missing)}, which this machine does not have",
                    hint=f"install the shared library of Python {sys.version_info.major}.{sys.version_info.minor} "
                    f"(Debian, Ubuntu: libpython{sys.version_info.major}.{sys.version_info.minor}), or use a Python "
                    "built with --enable-shared",
                    libraries=missing,
                )


def nvidia() -> Runtime | None:
    """The server of NVIDIA's image, when we run inside one; the stub then uses this interpreter's packages."""
    binary = NVIDIA_HOME / "bin" / "tritonserver"
    if not binary.is_file():
        return None
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', '')}"
    return Runtime(
        binary,
        NVIDIA_HOME / "backends",
        os.environ.get("TRITON_SERVER_VERSION", ""),
        {"PATH": path, "VIRTUAL_ENV": sys.prefix},
        site=sysconfig.get_path("purelib"),
    )


def supported() -> None:
    """Refuse machines the bundled binary does not run on.

    Raises:
        TritonFailed: not Linux x86_64 with glibc 2.35 or newer.
    """
    libc, version = platform.libc_ver()
    old = libc != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < (2, 35)
    if sys.platform != "linux" or platform.machine() != "x86_64" or old:
        raise TritonFailed(
            f"the bundled Triton runs on Linux x86_64 with glibc 2.35 or newer, not on {platform.platform()}",
            hint="`k2d serve teacher` is the other host; or use NVIDIA's image (deploy/triton)",
        )


def _missing_libraries(program: Path, environment: dict[str, str]) -> list[str]:
    """Names of the shared libraries that the loader would not find."""
    ldd = shutil.which("ldd")
    if ldd is None:
        return []
    listed = subprocess.run(
        [ldd, str(program)], env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    return [line.split()[0] for line in listed.stdout.splitlines() if "not found" in line]
