"""Sources by URI or path: describe them for a batch, expand folders, open them for reading."""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, cast

import fsspec

from k2d.errors import AudioError, BadRequest, NotFound, SourceRefused, SourceUnreachable, TooLarge, install_hint
from k2d.filehash import FileHashes, file_status, path_status
from k2d.keys import digest
from k2d.schema import QuarantineReason, Source
from k2d.sources import web
from k2d.sources.allow import check_allowed, check_opened, local_path, parse, shown

# files that are taken from a folder; a file given by name is always taken
_EXTENSIONS: Final = """
    3gp aac ac3 aif aifc aiff amr ape asf au avi caf flac flv m2ts m4a m4b m4v mka mkv mov mp2 mp3 mp4 mpeg mpg mxf
    oga ogg ogv opus snd sph spx tak ts tta w64 wav wave webm wma wmv wv
"""
MEDIA_EXTENSIONS: Final = frozenset(f".{extension}" for extension in _EXTENSIONS.split())
LIMIT_BYTES: Final = 16 * 1024**3  # largest download over https; ten hours of 48 kHz stereo WAV are 7 GB


def describe(uri: str, name: str | None = None, *, allowed: Sequence[str] | None = None) -> Source:
    """The source that a URI names, without reading it: its name, size, and a key that changes with its content.

        describe("s3://bucket/talk.flac").size_bytes

    `allowed` applies to redirects of https addresses and to the file that is really there; the caller checks the URI
    itself (`check_allowed`).

    Raises:
        NotFound: there is no such file, or no server answers.
        SourceRefused: the URI is malformed, or the storage denies access.
        BadRequest: an s3:// source without the s3 extra.
    """
    parsed = parse(uri)
    size: int | None = None
    mark: Any = None
    if parsed.scheme == "file":
        path = local_path(uri)
        if allowed is None:
            return _local(path, uri, name or readable(path))
        return _allowed(path, uri, name or readable(path), allowed)
    if parsed.scheme == "s3":
        size, mark = _s3_info(uri)
    elif parsed.scheme == "https":
        remote = web.head(uri, allowed=allowed)
        size, mark = remote.size_bytes, remote.mark
    return Source(name=name or shown(uri), uri=uri, key=digest("source", uri, size, mark), size_bytes=size)


def describe_lenient(
    uri: str, name: str | None = None, *, allowed: Sequence[str] | None = None, patient: bool = True
) -> Source:
    """The source that a URI names, whether or not it can be read: labeling quarantines it if it still cannot be then.

    For lists of URIs, where one that is gone or refused must not stop the others.

    Raises:
        SourceUnreachable: its storage does not answer, and `patient` is set: it may answer later.
        BadRequest: an s3:// source without the s3 extra.
    """
    try:
        if allowed is not None:
            check_allowed(uri, allowed)
        return describe(uri, name, allowed=allowed)
    except SourceUnreachable:
        if patient:
            raise
    except (NotFound, SourceRefused):
        pass
    return Source(name=name or shown(uri), uri=uri, key=digest("source", uri, "unreadable"), size_bytes=None)


def from_path(path: str | os.PathLike[str], name: str | None = None, *, hashes: FileHashes | None = None) -> Source:
    """The source for a local file. Its name, by default the path, is valid Unicode, whatever bytes the path contains.

        from_path("talks/a.wav").uri  # file:///…/talks/a.wav

    With `hashes` the file is read and the key is that of its content, wherever it lies; without, the key is that of its
    place, size, times and inode.

    Raises:
        NotFound: there is no such file.
        SourceRefused: it is a folder, a pipe or a device.
    """
    absolute = Path(os.path.abspath(path))  # symbolic links are kept: the user knows this name
    source = _local(absolute, absolute.as_uri(), readable(Path(name or path)))
    if hashes is None:
        return source
    try:
        with _open_file(absolute.as_uri(), None) as file:
            sha256 = hashes.of_file(file, absolute)
    except OSError as error:
        raise _not_there(absolute, error) from error
    return replace(source, key=content_key(sha256), sha256=sha256)


def with_known_content(source: Source, hashes: FileHashes) -> Source:
    """A source of `from_path` without hashes: as it is with them if the file was hashed before, else unchanged."""
    sha256 = hashes.known(local_path(source.uri)) if is_file(source) else None
    return source if sha256 is None else replace(source, key=content_key(sha256), sha256=sha256)


def content_key(sha256: str) -> str:
    """The key of a source whose bytes have this SHA-256: a local file or an upload."""
    return digest("upload", sha256)


def channel_key(key: str, number: int) -> str:
    """The key of one channel of a source."""
    return digest("channel", key, number)


def is_file(source: Source) -> bool:
    """Whether the source is a file on this machine (not an upload)."""
    return source.uri.startswith("file:")


def current_key(source: Source, file: BinaryIO, hashes: FileHashes) -> str:
    """The key of an opened local file as it is now: `source.key`, unless the file was changed since it was described.

    `file` was opened by `open_source`, and is at its start, where it is again afterwards.
    """
    path = local_path(source.uri)
    if source.sha256 is not None:
        keys = [content_key(hashes.of_file(file, path))]
    else:
        status = file_status(file)
        # version 0.2 described files by size and modification time only
        keys = [digest("source", source.uri, *status), digest("source", source.uri, *status[:2])]
    if source.channel is not None:
        keys = [channel_key(key, source.channel) for key in keys]
    return source.key if source.key in keys else keys[0]


def is_marked(source: Source) -> bool:
    """Whether `source.key` changes with the content. It does not where a server states neither ETag nor time."""
    key = digest("source", source.uri, source.size_bytes, "")
    return source.key != (key if source.channel is None else channel_key(key, source.channel))


def from_path_lenient(
    path: str | os.PathLike[str], name: str | None = None, *, hashes: FileHashes | None = None
) -> Source:
    """The source for a local file, whether or not it can be read: labeling quarantines it if it still cannot be then.

    For files that were found by a search, where one dangling link must not stop the others.
    """
    try:
        return from_path(path, name, hashes=hashes)
    except (NotFound, SourceRefused):
        uri = Path(os.path.abspath(path)).as_uri()
        key = digest("source", uri, "unreadable")
        return Source(name=readable(Path(name or path)), uri=uri, key=key, size_bytes=None)


def expand(
    paths: Iterable[str | os.PathLike[str]], *, extensions: frozenset[str] | None = MEDIA_EXTENSIONS
) -> list[Path]:
    """List files, sorted and without duplicates: those given, and the media files in the folders given.

        expand(["talks/", "interview.wav"])

    Folders are searched to any depth for files with `extensions` (None: all), without hidden files and without
    following links to folders.

    Raises:
        NotFound: a path does not exist.
        BadRequest: a folder cannot be listed.
    """

    def fail(error: OSError) -> NoReturn:
        folder = readable(Path(str(error.filename)))
        raise BadRequest(f"{folder!r} cannot be listed: {error.strerror}", hint="check its permissions") from error

    files: set[Path] = set()
    for given in map(Path, paths):
        if not given.is_dir():
            if not os.path.lexists(given):
                raise NotFound(f"{readable(given)!r} does not exist", hint="check the spelling and the current folder")
            files.add(given)
            continue
        for folder, folders, names in os.walk(given, onerror=fail):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files.update(
                Path(folder, name)
                for name in names
                if not name.startswith(".") and (extensions is None or Path(name).suffix.lower() in extensions)
            )
    return sorted(files, key=os.fsencode)


def open_source(
    source: Source,
    lake_open: Callable[[str], BinaryIO],
    *,
    allowed: Sequence[str] | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> BinaryIO:
    """Open a source for reading, as a seekable binary file, which the caller closes.

        with open_source(from_path("talk.m4a"), lake.open) as file:
            recording = audio.examine(file, min_s=0.1, max_s=86_400.0, silence_peak=0.001)

    Args:
        lake_open: opens lake:// URIs.
        allowed: prefixes to check the URI against once more, since links may have changed; None skips the check.
        limit_bytes: size limit of a file over https, which is downloaded to a temporary file first.

    Raises:
        AudioError: with `reason` unreadable (missing, or the storage denies access) or refused (by the allow-list).
        StoreError: there is no room for a temporary copy, or the lake cannot be read.
        BadRequest: an s3:// source without the s3 extra.
    """
    try:
        if allowed is not None:
            check_allowed(source.uri, allowed)
        scheme = parse(source.uri).scheme
        if scheme == "lake":
            return lake_open(source.uri)
        if scheme == "https":
            return web.fetch(source.uri, allowed=allowed, limit_bytes=limit_bytes)
        if scheme == "s3":
            return _open_s3(source.uri)
        return _open_file(source.uri, allowed)
    except SourceRefused as error:
        raise AudioError(error.message, reason=QuarantineReason.REFUSED, hint=error.hint, duration_s=0.0) from error
    except (NotFound, TooLarge) as error:
        raise _unreadable(error.message, hint=error.hint) from error
    except OSError as error:
        raise _unreadable(f"The file cannot be opened: {error.strerror or error}.") from error


def _open_file(uri: str, allowed: Sequence[str] | None) -> BinaryIO:
    """Open a regular file. Non-blocking, since a pipe that has replaced the file would block the worker forever.

    The allow-list is applied to the file that was opened: between a check of its path and opening it, a link in the
    path may change.
    """
    path = local_path(uri)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if allowed is not None:
            check_opened(uri, descriptor, allowed)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SourceRefused(
                f"{readable(path)!r} is not a regular file.", hint="refer to the files in it one by one"
            )
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _allowed(path: Path, uri: str, name: str, allowed: Sequence[str]) -> Source:
    """As `_local`, of the file that is really there; one outside of the allow-list is refused."""
    try:
        with _open_file(uri, allowed) as file:
            status = file_status(file)
    except OSError as error:
        raise _not_there(path, error) from error
    return Source(name=name, uri=uri, key=digest("source", uri, *status), size_bytes=status[0])


def _local(path: Path, uri: str, name: str) -> Source:
    """A regular file as a source, whose key is of its place, size, times and inode."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceRefused(
                f"{readable(path)!r} is not a regular file.", hint="refer to the files in it one by one"
            )
        status = path_status(path)
    except OSError as error:
        raise _not_there(path, error) from error
    return Source(name=name, uri=uri, key=digest("source", uri, *status), size_bytes=status[0])


def _not_there(path: Path, error: OSError) -> NotFound | SourceRefused:
    if isinstance(error, PermissionError):
        return SourceRefused(f"{readable(path)!r} may not be read.", hint="check the file's permissions")
    return NotFound(f"{readable(path)!r} is not there: {error.strerror}.", hint="check the path")


def _s3() -> tuple[Any, tuple[type[Exception], ...]]:
    """The S3 file system, and the exceptions it raises."""
    try:
        botocore = import_module("botocore.exceptions")
        return fsspec.filesystem("s3"), (OSError, botocore.BotoCoreError, botocore.ClientError)
    except ImportError as error:
        raise BadRequest("s3:// sources need the s3 extra", hint=install_hint("s3")) from error


def s3_listing(prefix: str) -> list[str]:
    """The URIs of all objects below a prefix, sorted.

    Raises:
        BadRequest: without the s3 extra.
        SourceRefused: the storage denies it.
        SourceUnreachable: the storage does not answer.
    """
    system, errors = _s3()
    system.invalidate_cache()
    folder, _, begin = prefix.removeprefix("s3://").rpartition("/")
    try:
        found = system.find(folder or begin, prefix=begin if folder else "")
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise SourceRefused(f"{prefix} may not be listed.", hint="check the credentials") from error
    except errors as error:
        hint = "check the endpoint and the credentials"
        raise SourceUnreachable(f"{prefix} cannot be listed: {error}", hint=hint) from error
    return sorted(f"s3://{path}" for path in found)


def _s3_info(uri: str) -> tuple[int | None, str]:
    system, errors = _s3()
    system.invalidate_cache()  # a cached listing would hide that the object has changed
    try:
        info = system.info(uri)
    except FileNotFoundError as error:
        raise NotFound(f"{uri} is not there.", hint="check bucket and key") from error
    except PermissionError as error:
        raise SourceRefused(f"{uri} may not be read.", hint="check the worker's credentials") from error
    except errors as error:
        hint = "check the endpoint and the credentials"
        raise SourceUnreachable(f"{uri} cannot be reached: {error}", hint=hint) from error
    if info.get("type") != "file":
        raise NotFound(f"{uri} is a folder.", hint="refer to objects one by one")
    return info.get("size"), str(info.get("ETag") or info.get("LastModified") or "")


def _open_s3(uri: str) -> BinaryIO:
    system, errors = _s3()
    try:
        return cast(BinaryIO, system.open(uri, "rb"))
    except errors as error:
        raise _unreadable(f"The object cannot be opened: {error}") from error


def _unreadable(message: str, *, hint: str | None = None) -> AudioError:
    return AudioError(
        message,
        reason=QuarantineReason.UNREADABLE,
        hint=hint or "check that it exists and that the worker may read it, then resume the batch",
        duration_s=0.0,
    )


def readable(path: Path) -> str:
    r"""A path as valid Unicode: bytes that are not UTF-8 become \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
