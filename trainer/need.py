"""Checks for optional packages, so that an error says what to install before an import fails."""

from importlib.util import find_spec
from typing import Final

from k2d.errors import ModelError, install_hint

PACKAGES: Final = (
    "torch",
    "transformers",
    "safetensors",
    "accelerate",
    "jinja2",
    "jiwer",
    "matplotlib",
    "threadpoolctl",
)


def need(*packages: str) -> None:
    """Check that these packages are installed; without arguments, all that training uses.

        need("jinja2", "jiwer")

    Raises:
        ModelError
    """
    missing = [name for name in packages or PACKAGES if find_spec(name) is None]
    if missing:
        raise ModelError(f"this needs {', '.join(missing)}", hint=install_hint("torch", "train"))
