"""Hashes of files are remembered only while the file system says that the file is the same."""

import hashlib
import os
from pathlib import Path

import pytest

from k2d import filehash
from k2d.filehash import FileHashes


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are old enough to be remembered as soon as they are written."""
    monkeypatch.setattr(filehash, "SETTLED_S", -1.0)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def notes(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    path, cache = tmp_path / "a", tmp_path / "cache"
    path.write_bytes(b"one")
    assert FileHashes(cache).of_path(path) == sha256(path)
    [note] = notes(cache)
    note.write_text(note.read_text().replace(sha256(path), "remembered"))
    assert FileHashes(cache).of_path(path) == "remembered"
    assert FileHashes(cache, trust=False).of_path(path) == sha256(path)
    for damage in ("{", "[]", '{"status": 1}', ""):
        note.write_text(damage)
        assert FileHashes(cache).of_path(path) == sha256(path)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("renamed", [False, True])
def test_other_bytes_of_the_same_size_and_time_are_noticed(tmp_path: Path, renamed: bool) -> None:
    path, hashes = tmp_path / "a", FileHashes(tmp_path / "cache")
    path.write_bytes(b"one")
    first, status = hashes.of_path(path), path.stat()
    target = tmp_path / "b" if renamed else path
    target.write_bytes(b"two")
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(target, path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert hashes.of_path(path) == sha256(path) != first


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    path, cache = tmp_path / "a", tmp_path / "cache"
    path.write_bytes(b"one")
    FileHashes(cache).of_path(path)
    assert not notes(cache)


@pytest.mark.usefixtures("settled")
def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    assert FileHashes(path).of_path(path) == sha256(path) == FileHashes(None).of_path(path)
