"""Audio from https servers, copied to a temporary file whose size is bounded."""

import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast
from urllib.parse import urljoin

import httpx
import stamina

from k2d.errors import NotFound, SourceRefused, StoreError, TooLarge
from k2d.sources.allow import check_allowed, is_public, parse, shown

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)  # between two pieces of an answer; a stalled server is not waited for
_DEADLINE_S = 3600.0  # for a whole file: a server that drips a byte a minute never times out otherwise
_REDIRECTS = 5
_ATTEMPTS = 3
_RETRY_CODES = (408, 429, 500, 502, 503, 504)
_PIECE_BYTES = 1 << 20


class _Unavailable(Exception):
    """Trouble that another attempt may not have."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What an answer's header says: the size where it does, and a mark that changes with the content."""

    size_bytes: int | None
    mark: str


def head(uri: str, *, allowed: Sequence[str] | None) -> RemoteFile:
    """Ask for a file's size and change mark, without its body.

    A GET that is hung up on, not a HEAD: addresses that are signed for GET refuse the other.

    Raises:
        NotFound: there is no such file, or the server does not answer.
        SourceRefused: the server, an address on the way or the allow-list refuses.
    """
    with _trouble(uri):
        for attempt in stamina.retry_context(on=_Unavailable, attempts=_ATTEMPTS, wait_initial=0.2):
            with attempt, _answer(uri, allowed) as answer:
                length = answer.headers.get("content-length", "")
                mark = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
                return RemoteFile(int(length) if length.isdecimal() else None, mark)
    raise AssertionError("retry_context either returns or raises")


def fetch(uri: str, *, allowed: Sequence[str] | None, limit_bytes: int) -> BinaryIO:
    """Copy a file's body to an unnamed temporary file, open at its start.

    Raises:
        NotFound: there is no such file, or the server does not answer or breaks off.
        SourceRefused: the server, an address on the way or the allow-list refuses.
        TooLarge: more than `limit_bytes`, or longer than an hour.
        StoreError: there is no room for the copy.
    """
    with _trouble(uri):
        for attempt in stamina.retry_context(on=_Unavailable, attempts=_ATTEMPTS, wait_initial=0.5):
            with attempt, _answer(uri, allowed) as answer:
                return _copy(answer, limit_bytes)
    raise AssertionError("retry_context either returns or raises")


@contextmanager
def _trouble(uri: str) -> Iterator[None]:
    try:
        yield
    except _Unavailable as error:
        raise NotFound(
            f"{shown(uri)} cannot be read: {error}.", hint="check the address, and that the server answers"
        ) from error


@contextmanager
def _answer(uri: str, allowed: Sequence[str] | None) -> Iterator[httpx.Response]:
    """The first answer that is no redirect. Each hop is judged like the first address."""
    # without a list, whoever wrote the address names its host; redirects may still not lead from outside to inside
    named = {parse(known).host for known in (allowed if allowed is not None else [uri]) if known.startswith("https:")}
    with httpx.Client(timeout=_TIMEOUT, headers={"Accept-Encoding": "identity"}) as client:
        for _ in range(_REDIRECTS + 1):
            if allowed is not None:
                check_allowed(uri, allowed)
            place = parse(uri)
            if place.scheme != "https" or not place.host:
                raise SourceRefused(f"{shown(uri)} is refused: not an https address.")
            if place.host not in named:
                _refuse_private(uri, place.host)
            try:
                with client.stream("GET", uri) as answer:
                    if not answer.has_redirect_location:
                        _check_status(uri, answer)
                        yield answer
                        return
                    uri = urljoin(uri, answer.headers["location"])
            except httpx.TransportError as error:
                raise _Unavailable(str(error) or type(error).__name__) from error
            except httpx.InvalidURL as error:
                raise SourceRefused(f"{shown(uri)} is refused: {error}.") from error
    raise SourceRefused(f"{shown(uri)}: more than {_REDIRECTS} redirects.", hint="give the file's final address")


def _check_status(uri: str, answer: httpx.Response) -> None:
    code = answer.status_code
    if code in _RETRY_CODES:
        raise _Unavailable(f"the server answers {code}")
    if code in (401, 403, 407, 451):
        raise SourceRefused(f"{shown(uri)} is refused by its server ({code}).", hint="check the access rights")
    if code != 200:
        raise NotFound(f"{shown(uri)} is not there: the server answers {code}.", hint="check the address")


def _refuse_private(uri: str, host: str) -> None:
    """Refuse a name that leads to a machine nobody outside can reach (this one, its neighbours, a metadata service).

    The name is resolved once more for the connection; a name server that answers differently then still meets TLS:
    the machine it points to has no certificate for that name.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _Unavailable(f"{host} has no address") from error
    if not all(is_public(str(address[4][0])) for address in found):
        raise SourceRefused(
            f"{shown(uri)} is refused: {host} is a private address.",
            hint="name the host in K2D_ALLOWED_SOURCES if it is meant to be read",
        )


def _copy(answer: httpx.Response, limit_bytes: int) -> BinaryIO:
    end = time.monotonic() + _DEADLINE_S
    copied = 0
    file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    try:
        for piece in answer.iter_bytes(_PIECE_BYTES):
            copied += len(piece)
            if copied > limit_bytes:
                raise TooLarge(f"The file has more than {limit_bytes:,} bytes.", hint="split it", limit=limit_bytes)
            if time.monotonic() > end:
                raise TooLarge(f"The server needs more than {_DEADLINE_S:.0f} s.", hint="copy the file nearer")
            try:
                file.write(piece)
            except OSError as error:
                raise StoreError(
                    f"there is no room for a temporary copy: {error.strerror}",
                    hint="free space in the temporary folder",
                ) from error
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file
