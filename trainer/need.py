"""Say what to install before an import fails deep inside."""

from importlib.util import find_spec

from k2d.errors import ModelError, install_hint

PACKAGES = ("torch", "transformers", "safetensors", "accelerate", "jinja2", "matplotlib", "threadpoolctl")


def need(*packages: str) -> None:
    """Check that these packages are there; without arguments, all that training uses.

    Raises:
        ModelError
    """
    missing = [name for name in packages or PACKAGES if find_spec(name) is None]
    if missing:
        raise ModelError(f"this needs {', '.join(missing)}", hint=install_hint("torch", "train"))
