"""Turns the errors of file systems, Arrow and object stores into a StoreError with a path and a hint."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa

from k2d.errors import DamagedFile, K2DError, NotFound, StoreError

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED: Final = {errno.EACCES, errno.EPERM}

FULL_HINT: Final = (
    "free space or raise the quota; what was written before is intact, and `k2d resume` continues from there"
)
READ_ONLY_HINT: Final = "the file system is mounted read-only: remount it, or point K2D_STORE somewhere else"
DENIED_HINT: Final = "the service's user may not write here: fix owner, mode or bucket policy, or set K2D_STORE"
UNREACHABLE_HINT: Final = "check K2D_STORE, the network and the credentials; nothing is lost, retry when it answers"
DAMAGED_HINT: Final = "run `k2d store check --repair`, which moves the file to damaged/, then `k2d resume`"
# What makes a damaged file again, by its path; for every other file DAMAGED_HINT is true.
_MADE_AGAIN: Final = (
    (r"batches/[^/]+/batch\.json", "label the same files again with `k2d label`: it makes the record again"),
    (r"names/[^/]+\.json", "run `k2d store check --repair`: it makes the name again from the batch"),
    (
        r"batches/[^/]+/index/.+",
        "run `k2d store check --repair`: the index is made again when it is needed",
    ),
    (r"access/keys/[^/]+\.json", "revoke it by the id in its name (`k2d keys revoke`), then make another key"),
    (r"facts/.+", "run `k2d resume`: it computes the facts again from the stored labels and hypotheses"),
    (r"datasets/[^/]+/.+", "run `k2d datasets delete` with its name, then `k2d freeze` it again, or pull it again"),
)
_IS_DAMAGED: Final = " is damaged: "  # between path and reason in a message
# what Arrow says of a file that is cut off or is something else, in plain words
_ARROW_WORDS: Final = (
    ("size is 0 bytes", "it is empty"),
    ("too small: 0", "it is empty"),
    ("minimum file footer", "it is cut off, or not Parquet"),
    ("magic bytes", "it is cut off, or not Parquet"),
    ("too small", "it is cut off, or not Arrow"),
    ("Not an Arrow file", "it is cut off, or not Arrow"),
)


@contextmanager
def guard(path: str, *, writing: bool = False) -> Iterator[None]:
    """Convert errors of the storage inside of the block to a StoreError with `path` and a hint.

    `path` is the file's path in the store: messages are shown to people who may not know where the store lies.

        with guard(path, writing=True):
            file.write(data)

    Raises:
        NotFound: reading a file that does not exist.
        StoreError: any other OSError, Arrow error or error of an object store's client.
    """
    try:
        yield
    except K2DError:
        raise
    except FileNotFoundError as error:
        if not writing:
            raise NotFound(f"{path} is not in the store") from error
        raise StoreError(f"cannot write {path}: its folder or bucket is gone", hint=UNREACHABLE_HINT) from error
    except (OSError, pa.ArrowException) as error:
        raise _explain(error, path, writing=writing) from error
    except _client_errors() as error:  # object store clients also raise errors that are not OSErrors
        raise StoreError(f"the store did not answer for {path}: {error}", hint=UNREACHABLE_HINT) from error


@contextmanager
def decoding(path: str) -> Iterator[None]:
    """Convert the errors of Python code that meets other values than were written to a DamagedFile.

        with decoding(path):
            segments = [Segment(**value) for value in row["segments"]]

    Raises:
        DamagedFile: TypeError, KeyError, ValueError, AttributeError or IndexError in the block.
    """
    try:
        yield
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise damaged(path, reason(error)) from error


def damaged(path: str, why: object) -> DamagedFile:
    """The error for a file that exists but has the wrong content. Its hint says what makes that file again."""
    hints = (hint for pattern, hint in _MADE_AGAIN if re.search(rf"(^|/){pattern}$", path))
    return DamagedFile(f"{path}{_IS_DAMAGED}{why}", hint=next(hints, DAMAGED_HINT), path=path)


def why_damaged(error: StoreError) -> str:
    """What is wrong with a file, without the path that the message begins with.

    why_damaged(damaged("labels/ab/abcd.parquet", "it is empty")) == "it is empty"
    """
    return error.message.removeprefix(f"{error.details.get('path')}{_IS_DAMAGED}")


def reason(error: BaseException) -> str:
    """What is wrong with a file's content, in plain words, by the error that reading it raised."""
    text = (str(error).splitlines() or [""])[0][:300]
    if isinstance(error, pa.ArrowException | OSError):
        return next((words for part, words in _ARROW_WORDS if part in text), text)
    if isinstance(error, ValueError) and "JSON" in type(error).__name__:
        return f"it is not JSON ({text})"
    if isinstance(error, KeyError):
        return f"{text} is missing in it"
    return f"it has other content than k2d writes ({text or 'unreadable'})"


def _explain(error: BaseException, path: str, *, writing: bool) -> StoreError:
    code = getattr(error, "errno", None)
    verb = "write" if writing else "read"
    if code in _FULL:
        return StoreError(f"the store is full: cannot write {path}", hint=FULL_HINT, path=path)
    if code == errno.EROFS:
        return StoreError(f"the store is read-only: cannot write {path}", hint=READ_ONLY_HINT, path=path)
    if code in _DENIED or isinstance(error, PermissionError):
        return StoreError(f"no permission to {verb} {path}", hint=DENIED_HINT, path=path)
    if not writing and isinstance(error, IsADirectoryError):
        return damaged(path, "it is a folder")
    if not writing and (isinstance(error, pa.ArrowException) or (type(error) is OSError and code is None)):
        return damaged(path, reason(error))  # Arrow reports a damaged file as an OSError without errno
    why = getattr(error, "strerror", None) or error or type(error).__name__  # str(OSError) has the path in it
    return StoreError(f"cannot {verb} {path}: {why}", hint=UNREACHABLE_HINT, path=path)


def _client_errors() -> tuple[type[Exception], ...]:
    """The error classes of those object store clients that are loaded; none of them is a dependency."""
    errors: list[type[Exception]] = []
    for module, names in (
        ("botocore.exceptions", ("BotoCoreError", "ClientError")),
        ("aiohttp", ("ClientError",)),
        ("google.auth.exceptions", ("GoogleAuthError",)),
        ("azure.core.exceptions", ("AzureError",)),
    ):
        loaded = sys.modules.get(module)
        errors += [getattr(loaded, name) for name in names if loaded is not None and hasattr(loaded, name)]
    return tuple(errors)
