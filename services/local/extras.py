"""Which of k2d's extras are installed, from what its own package says they need."""

import re
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from k2d.errors import K2DError, install_hint

PACKAGE: Final = "k2d"
LEFT_OUT: Final = ("dev",)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA: Final = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True, slots=True)
class Extra:
    """An extra, and the packages of it that are installed or missing."""

    name: str
    installed: tuple[str, ...]  # "name version"
    missing: tuple[str, ...]


class PartOfExtra(K2DError):
    """Some packages of an extra are installed and others are not: what uses it fails when it gets to them."""

    code = "part_of_extra"


def extras() -> list[Extra]:
    """All extras but those of developers, in the order of the package's metadata; none where it is not installed."""
    try:
        required = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return []
    needs: dict[str, list[str]] = {}
    for requirement in required:
        extra, name = _EXTRA.search(requirement), _NAME.match(requirement)
        if extra and name and extra[1] not in LEFT_OUT:
            needs.setdefault(extra[1], []).append(name[0])
    return [_extra(name, packages) for name, packages in needs.items()]


def describe(extra: Extra) -> str:
    """The packages of an extra that is installed.

    Raises:
        PartOfExtra: some are missing.
        K2DError: all are.
    """
    if not extra.missing:
        return ", ".join(extra.installed)
    error = PartOfExtra if extra.installed else K2DError
    raise error(f"{', '.join(extra.missing)} not installed", hint=install_hint(extra.name))


def _extra(name: str, packages: list[str]) -> Extra:
    installed, missing = [], []
    for package in packages:
        try:
            installed.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    return Extra(name, tuple(installed), tuple(missing))
