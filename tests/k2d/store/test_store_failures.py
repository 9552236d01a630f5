"""Storage that fails for real: a full disk, a read-only mount, no permission, nobody there. Always a StoreError."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lakes import batch, put_recording, recording

from k2d.corpus.index import read_index
from k2d.errors import StoreError
from k2d.schema import Outcome, RecordingResult
from k2d.store import Examination, Lake

WRITES: dict[str, Callable[[Lake], object]] = {
    "check": lambda lake: lake.check(),
    "upload": lambda lake: lake.uploads.put(Path(__file__).resolve()),
    "examination": lambda lake: lake.examinations.put("ab12", Examination(recording(1, 1.0), None, None, 1.0)),
    "labels and facts": lambda lake: put_recording(lake, 7, [(0.0, 20.0)]),
    "batch": lambda lake: lake.batches.put(batch(100, batch_id="b_new", name="new")),
    "result": lambda lake: lake.batches.put_result(
        "b_0123456789abcdef", RecordingResult(1, "x", Outcome.QUARANTINED, 0.0)
    ),
    "cancel": lambda lake: lake.batches.cancel("b_0123456789abcdef"),
}


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def prepared(folder: Path) -> Lake:
    lake = Lake(str(folder))
    lake.batches.put(batch(2))
    lake.batches.put_result("b_0123456789abcdef", put_recording(lake, 0, [(0.0, 1.0)]))
    return lake


def assert_readable(lake: Lake) -> None:
    """What was written before the trouble is all there."""
    (result,) = lake.batches.results("b_0123456789abcdef")
    assert len(lake.facts.read(str(result.facts_key))) == 1
    assert len(list(lake.labels.read(str(result.label_key), audio=True))) == 1
    assert read_index(lake, "b_0123456789abcdef").num_rows == 1


def fill(folder: Path) -> None:
    """Until not one byte more is taken."""
    with open(folder / "ballast", "wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(b"x" * 4096):
            pass


@pytest.mark.parametrize("what", [what for what in WRITES if what != "cancel"])
def test_a_full_disk(mount: Path, what: str) -> None:
    lake = prepared(mount)
    fill(mount)
    before = {path: path.stat().st_size for path in mount.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match="full") as caught:
        WRITES[what](lake)
    assert "free space" in (caught.value.hint or "")
    assert {path: path.stat().st_size for path in mount.rglob("*") if path.is_file()} == before
    assert_readable(lake)


def test_a_batch_can_be_cancelled_on_a_full_disk(mount: Path) -> None:
    lake = prepared(mount)
    fill(mount)
    lake.batches.cancel("b_0123456789abcdef")  # an empty mark takes no block
    assert lake.batches.is_cancelled("b_0123456789abcdef")


@pytest.mark.parametrize("what", WRITES)
def test_a_read_only_mount(mount: Path, what: str) -> None:
    lake = prepared(mount)
    lake.batches.put_result("b_0123456789abcdef", RecordingResult(1, "x", Outcome.QUARANTINED, 0.0))
    lake.batches.delete_result("b_0123456789abcdef", 1)
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    with pytest.raises(StoreError, match="read-only") as caught:
        WRITES[what](lake)
    assert "K2D_STORE" in (caught.value.hint or "")
    assert_readable(lake)


def test_an_index_that_cannot_be_stored_is_still_read(mount: Path) -> None:
    lake = prepared(mount)
    lake.batches.put_result("b_0123456789abcdef", RecordingResult(1, "x", Outcome.QUARANTINED, 0.0))
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    assert read_index(lake, "b_0123456789abcdef").num_rows == 1


def test_a_folder_of_someone_else(tmp_path: Path) -> None:
    """As nobody in a child process, because root may write anywhere."""
    folder = tmp_path / "lake"
    prepared(folder)
    if os.geteuid() != 0:
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o555)
        with pytest.raises(StoreError, match="permission"):
            Lake(str(folder)).check()
        return
    for parent in [folder, *folder.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    code = f"""
import os, k2d.store, k2d.errors
os.setgid(65534); os.setuid(65534)
lake = k2d.store.Lake({str(folder)!r})
try:
    lake.check()
except k2d.errors.StoreError as error:
    print(error.message, "|", error.hint)
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.startswith("no permission to write checks")
    assert "owner, mode" in child.stdout


@pytest.mark.parametrize("what", ["upload", "labels and facts"])
def test_a_limit_on_file_sizes(tmp_path: Path, what: str) -> None:
    """A quota that bites in the middle of a file, for users without root as well."""
    lake = prepared(tmp_path / "lake")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StoreError, match="full"):
            WRITES[what](lake)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "lake").rglob("*.tmp"))
    assert_readable(lake)


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("not a folder")
    with pytest.raises(StoreError) as caught:
        Lake(str(tmp_path / "lake")).check()
    assert caught.value.hint


def test_an_unknown_protocol() -> None:
    with pytest.raises(StoreError, match="nosuch"):
        Lake("nosuch://bucket/lake")
