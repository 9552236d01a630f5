"""The console's files: released libraries unchanged, small in all, nothing from another host."""

import hashlib
import re
from pathlib import Path

import pytest

from k2d.errors import NotFound
from services.filter.console import files

STATIC = Path(files.__file__).parent / "static"
VENDORED = re.findall(
    r"^\| (\S+\.\w+) \|.*\| ([0-9a-f]{64}) \|$", (STATIC / "vendor/README.md").read_text("utf-8"), re.M
)
MOST_BYTES = 400_000


@pytest.mark.parametrize(("name", "digest"), VENDORED)
def test_vendored_files_are_as_released(name: str, digest: str) -> None:
    assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest


def test_every_vendored_file_is_listed_with_its_licence() -> None:
    names = {path.name for path in (STATIC / "vendor").iterdir()}
    code = {name for name in names if name.endswith((".js", ".css"))}
    assert code == {name for name, _ in VENDORED}
    assert all(
        any(name.startswith(licence.removesuffix(".LICENSE")) for licence in names if licence.endswith(".LICENSE"))
        for name in code
    )


def test_all_assets_together_are_small() -> None:
    assert sum(len(content) for content, _ in files._all().values()) <= MOST_BYTES


@pytest.mark.parametrize("name", ["", "..", "../page.py", "vendor/../console.css", "vendor", "nothing.css"])
def test_other_files_cannot_be_had(name: str) -> None:
    with pytest.raises(NotFound):
        files.file(name)


def test_an_address_changes_with_the_content() -> None:
    content, digest = files._all()["console.css"]
    assert files.address("console.css") == f"static/console.css?v={digest[:8]}"
    assert hashlib.sha256(content).hexdigest() == digest


def test_pages_load_nothing_from_elsewhere() -> None:
    pages = [*(STATIC.parent / "templates").rglob("*.html"), *STATIC.glob("*.*")]
    for page in pages:
        addresses = re.findall(r"""(?:src|href|url\()=?["'(]?(https?:)?//""", page.read_text("utf-8"))
        assert not addresses, page
