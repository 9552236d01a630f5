"""Sends files to an open batch: several at a time, only what the API does not have, and the rest of what broke off."""

import base64
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from k2d.documents import DECLARED, MissingSource, MissingSources
from k2d.errors import BadRequest, K2DError
from k2d.filehash import FileHashes
from k2d.wording import counted

AT_ONCE: Final = 4  # files that are sent, and hashed, at the same time
BLOCK_BYTES: Final = 1 << 20
RETRIES_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # waits before the rest of a file is sent again
CHANGES: Final = 3  # times that a file may change while it is sent

Send = Callable[..., dict[str, Any]]  # Client's: method, path, then httpx's arguments


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to send, under the name that the batch shows."""

    path: Path
    name: str
    sha256: str
    size_bytes: int


def hash_all(named: Mapping[Path, str], hashes: FileHashes) -> list[LocalFile]:
    """Hash files, given with their names, several at a time; few are open at once.

    Raises:
        BadRequest: some cannot be read: all of them are named, and nothing is sent.
    """
    unreadable: list[str] = []

    def hashed(path: Path) -> LocalFile | None:
        try:
            return hash_one(path, named[path], hashes)
        except OSError as error:
            unreadable.append(f"{str(path)!r} ({error.strerror})")
            return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        files = [file for file in pool.map(hashed, named) if file is not None]
    if unreadable:
        raise BadRequest(
            f"{counted(len(unreadable), 'file')} cannot be read, so nothing was sent: {', '.join(sorted(unreadable))}",
            hint="repair or leave out these files; `k2d label --embedded` quarantines them and labels the others",
        )
    return files


def hash_one(path: Path, name: str, hashes: FileHashes) -> LocalFile:
    """Hash a file.

    Raises:
        OSError
    """
    with path.open("rb") as file:
        sha256 = hashes.of_file(file, path)
        return LocalFile(path, name, sha256, os.fstat(file.fileno()).st_size)


class Uploader:
    """Sends files to one open batch.

    Uploader(client._send, open_batch.id, hashes).send(files)
    """

    def __init__(self, send: Send, batch: str, hashes: FileHashes) -> None:
        self._send, self._hashes = send, hashes
        self._path = f"/v1/batches/{quote(batch, safe='')}/sources"
        self._stopped = threading.Event()

    def send(self, files: Sequence[LocalFile]) -> None:
        """Declare the files, and send those whose bytes the API does not have.

        Raises:
            BadRequest: a file vanished, or changes all the time.
            ApiError, Unreachable: the API refused, or was gone for long.
        """
        for start in range(0, len(files), DECLARED):
            part = files[start : start + DECLARED]
            by_hash = {file.sha256: file for file in part}
            self._send_all([(by_hash[item.sha256], item.offset) for item in self._declare(part)])

    def _declare(self, files: Sequence[LocalFile]) -> list[MissingSource]:
        rows = [{"name": file.name, "sha256": file.sha256, "size_bytes": file.size_bytes} for file in files]
        answer = _persistently(lambda: self._send("POST", self._path, json={"sources": rows}), self._stopped)
        return MissingSources.model_validate(answer).missing

    def _send_all(self, files: Sequence[tuple[LocalFile, int]]) -> None:
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="upload")
        futures: list[Future[None]] = []
        try:
            futures = [pool.submit(self._send_one, file, offset) for file, offset in files]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:  # also after Ctrl-C: files in flight stop at their next block, and go on from there another time
            self._stopped.set() if any(not future.done() for future in futures) else None
            pool.shutdown(wait=True, cancel_futures=True)

    def _send_one(self, file: LocalFile, offset: int) -> None:
        for _ in range(CHANGES):
            try:
                self._put(file, offset)
                return
            except K2DError as error:
                if error.code != "content_differs":
                    raise
            file, offset = self._again(file)
            if offset < 0:
                return
        raise BadRequest(f"{file.name!r} changes all the time", hint="send it when it is complete")

    def _again(self, file: LocalFile) -> tuple[LocalFile, int]:
        """Declare a file that has changed as it is now; the offset is -1 where its bytes are there already."""
        try:
            file = hash_one(file.path, file.name, FileHashes(None))
        except OSError as error:
            raise _gone(file, error) from error
        missing = self._declare([file])
        return file, missing[0].offset if missing else -1

    def _put(self, file: LocalFile, offset: int) -> None:
        digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
        address = f"{self._path}/{quote(file.name, safe='')}"
        headers = {"Repr-Digest": f"sha-256=:{digest}:", "Content-Type": "application/octet-stream"}

        def put() -> None:
            nonlocal offset
            if offset > file.size_bytes:
                offset = 0
            more = {"Upload-Offset": str(offset), "Upload-Complete": "?1"}
            try:
                self._send(
                    "PUT", address, params={"declared": True}, headers=headers | more, content=self._read(file, offset)
                )
            except K2DError as error:
                if error.code == "api_unreachable" or error.code in ("wrong_offset", "too_slow", "busy"):
                    offset = self._offset(address, headers)
                    raise _TryAgain(error) from error
                raise

        _persistently(put, self._stopped)

    def _offset(self, address: str, headers: dict[str, str]) -> int:
        try:
            answer = self._send("GET", address, headers={"Repr-Digest": headers["Repr-Digest"]})
        except K2DError:  # nothing is there, or the API is gone: the next attempt will tell
            return 0
        return 0 if answer["complete"] else int(answer["offset"])

    def _read(self, file: LocalFile, offset: int) -> Iterator[bytes]:
        try:
            with file.path.open("rb") as opened:
                opened.seek(offset)
                while (block := opened.read(BLOCK_BYTES)) and not self._stopped.is_set():
                    yield block
        except OSError as error:
            raise _gone(file, error) from error
        if self._stopped.is_set():
            raise BadRequest("the upload was stopped", hint="run the same command again: it goes on from here")


class _TryAgain(K2DError):
    """Another attempt may succeed, from the offset that is there now."""

    code = "api_unreachable"

    def __init__(self, error: K2DError) -> None:
        super().__init__(error.message, hint=error.hint)
        self.status = error.status


def _persistently(act: Callable[[], Any], stopped: threading.Event) -> Any:
    """Call until it succeeds, as often as there are RETRIES_S, while the API is unreachable."""
    for wait_s in RETRIES_S:
        try:
            return act()
        except K2DError as error:
            if error.code != "api_unreachable" or stopped.wait(wait_s):
                raise
    return act()


def _gone(file: LocalFile, error: OSError) -> BadRequest:
    return BadRequest(
        f"{file.name!r} cannot be read any more: {error.strerror}",
        hint="what was sent stays; run the same command again: it sends only what is missing",
    )
