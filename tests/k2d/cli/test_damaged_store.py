"""What commands say over a store in which somebody damaged a file: which file, and which command mends it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import finished_batch
from lakes import copy

from k2d.client import Embedded
from k2d.filtering.policy import DEFAULT
from k2d.settings import Settings
from k2d.store import Lake

Run = Callable[..., tuple[int, str, str]]

COMMANDS = (
    ("status", "monday"),
    ("chunks", "monday"),
    ("freeze", "again", "--batch", "monday"),
    ("export", "first", "out", "--format", "nemo"),
    ("store", "check"),
)
FILES = (
    "batches/*/batch.json",
    "batches/*/results/000000/000000000.json",
    "batches/*/index/*.chunks.arrow",
    "batches/*/index/*.ledger.json",
    "datasets/first/manifest.json",
    "datasets/first/*/*.parquet",
    "facts/*/*.parquet",
    "hypotheses/*/*.parquet",
    "labels/*/*.parquet",
    "names/*.json",
    "store.json",
)
DAMAGE: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(b"garbage"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
}
# what belongs to the code, not to whoever reads an error
INTERNAL = re.compile(r"_key\b|Arrow(Invalid|IO)|[A-Z]\w*Error\b|magic bytes|unexpected error")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A batch and a dataset of it."""
    lake = Lake(str(tmp_path_factory.mktemp("whole") / "lake"))
    finished_batch(lake, name="monday")
    embedded = Embedded(Settings(store=lake.files.root, _env_file=None))
    embedded.freeze("first", ["monday"], DEFAULT)
    embedded.status("monday")
    lake.mark_current()
    return lake


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_an_error_names_the_file_and_the_command_that_mends_it(
    k2d: Run, whole: Lake, tmp_path: Path, file: str, damage: str
) -> None:
    for number, command in enumerate(COMMANDS):
        root = tmp_path / f"lake-{number}"
        path = next(Path(copy(whole, root).files.root).glob(file))
        DAMAGE[damage](path)
        code, out, err = k2d(*command, K2D_STORE=str(root))
        assert not INTERNAL.search(out + err), (command, out + err)
        if command[:2] == ("store", "check"):
            for line in (line for line in out.splitlines() if path.name in line):
                assert line.count(path.name) == 1, line
        elif code:
            lines = err.splitlines()
            [error] = [line for line in lines if line.startswith("error")]
            [hint] = [line for line in lines if line.startswith("hint")]
            assert "`k2d " in hint, (command, err)
            # a name that leads nowhere, and a dataset without a manifest, are not known by their files
            assert path.name in error or damage == "gone", (command, err)


def test_a_damaged_dataset_can_be_deleted_as_its_error_says(k2d: Run, whole: Lake, tmp_path: Path) -> None:
    lake = copy(whole, tmp_path / "lake")
    lake.files.write("datasets/first/manifest.json", b"{")
    code, _, err = k2d("datasets", "show", "first")
    assert code
    assert "k2d datasets delete" in err
    assert k2d("datasets", "delete", "first", "--yes")[0] == 0
    assert lake.files.listing("datasets/first") == []
    assert k2d("datasets", "delete", "first", "--yes")[0] == 2


@pytest.mark.parametrize(("folder", "noun"), [("labels", "labels"), ("facts", "facts")])
def test_shards_that_are_gone_are_no_mixture_of_versions(
    k2d: Run, whole: Lake, tmp_path: Path, folder: str, noun: str
) -> None:
    lake = copy(whole, tmp_path / "lake")
    path = next(Path(lake.files.root).glob(f"{folder}/*/*.parquet"))
    path.unlink()
    code, _, err = k2d("freeze", "again", "--batch", "monday")
    assert code == 1
    assert f"the {noun} of " in err
    assert path.name in err
    assert "versions" not in err


def test_hypotheses_that_are_gone_are_found_and_the_facts_made_of_them_are_made_again(
    k2d: Run, whole: Lake, tmp_path: Path
) -> None:
    lake = copy(whole, tmp_path / "lake")
    next(Path(lake.files.root).glob("hypotheses/*/*.parquet")).unlink()
    code, out, _ = k2d("store", "check", "--fast")
    assert code == 1
    assert "hypotheses that it was made from are gone (1 of 1)" in out
    assert "after the repair: `k2d resume` makes it again" in out
    code, out, _ = k2d("store", "check", "--repair")
    assert code == 0
    assert "now: `k2d resume` makes it again" in out
    assert "2 files moved to damaged/" in out  # the facts, and the result that named them
    assert "--repair" not in out
    assert k2d("store", "check") == (0, "14 files checked: nothing is damaged\n", "")
    assert "1 recording missing" in k2d("status", "monday")[1]


def test_a_repair_that_moves_nothing_does_not_say_that_it_did(k2d: Run, whole: Lake, tmp_path: Path) -> None:
    lake = copy(whole, tmp_path / "lake")
    next(Path(lake.files.root).glob("batches/*/index/*.chunks.arrow")).write_bytes(b"x")
    assert "to mend what can be mended: k2d store check --repair" in k2d("store", "check")[1]
    assert "damaged/" not in k2d("store", "check", "--repair")[1]
    next(Path(lake.files.root).glob("batches/*/batch.json")).write_bytes(b"x")
    out = k2d("store", "check")[1]
    assert "--repair" not in out  # nothing here can be mended by it
    assert "now: label the same files again" in out
