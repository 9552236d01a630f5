"""Downloads audio over https to a temporary file of bounded size."""

import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final, cast
from urllib.parse import urljoin
from urllib.request import getproxies, proxy_bypass

import httpx
import stamina

from k2d.errors import NotFound, SourceRefused, SourceUnreachable, StoreError, TooLarge
from k2d.sources.allow import ParsedUri, check_allowed, is_public, parse, shown

_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)  # per read, not per file
_DEADLINE_S: Final = 3600.0  # for a whole file: a server that sends a byte a minute never exceeds the timeout per read
_REDIRECTS: Final = 5
_HTTPS_PORT: Final = 443
_ATTEMPTS: Final = 3
_RETRY_CODES: Final = (408, 429, 500, 502, 503, 504)
_PIECE_BYTES: Final = 1 << 20


class _RetryableFailure(Exception):
    """A failure that a retry may not meet."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file's size, if the server states it, and a mark that changes with its content (ETag or Last-Modified)."""

    size_bytes: int | None
    mark: str


def head(uri: str, *, allowed: Sequence[str] | None) -> RemoteFile:
    """Ask for a file's size and change mark, without its body.

    Sends a GET and closes the connection after the headers, since addresses that are signed for GET refuse a HEAD.

    Raises:
        NotFound: there is no such file, or the server does not answer.
        SourceRefused: the server refuses, or the URI or a redirect is not allowed.
    """
    with _as_not_found(uri):
        for attempt in stamina.retry_context(on=_RetryableFailure, attempts=_ATTEMPTS, wait_initial=0.2):
            with attempt, _response(uri, allowed) as response:
                length = response.headers.get("content-length", "")
                mark = response.headers.get("etag") or response.headers.get("last-modified") or ""
                return RemoteFile(int(length) if length.isdecimal() else None, mark)
    raise AssertionError("retry_context either returns or raises")


def fetch(uri: str, *, allowed: Sequence[str] | None, limit_bytes: int) -> BinaryIO:
    """Download a file to an unnamed temporary file and return it, positioned at its start; the caller closes it.

    Raises:
        NotFound: there is no such file, or the server does not answer or closes the connection early.
        SourceRefused: the server refuses, or the URI or a redirect is not allowed.
        TooLarge: the file has more than `limit_bytes`, or takes longer than an hour.
        StoreError: there is no room for the copy.
    """
    with _as_not_found(uri):
        for attempt in stamina.retry_context(on=_RetryableFailure, attempts=_ATTEMPTS, wait_initial=0.5):
            with attempt, _response(uri, allowed) as response:
                return _copy(response, limit_bytes)
    raise AssertionError("retry_context either returns or raises")


@contextmanager
def _as_not_found(uri: str) -> Iterator[None]:
    """Turn a failure that persisted through all retries into NotFound."""
    try:
        yield
    except _RetryableFailure as error:
        raise SourceUnreachable(
            f"{shown(uri)} cannot be read: {error}.", hint="check the address, and that the server answers"
        ) from error


@contextmanager
def _response(uri: str, allowed: Sequence[str] | None) -> Iterator[httpx.Response]:
    """The response after at most `_REDIRECTS` redirects. Each redirect is checked like the first address."""
    # without an allow-list the given host is trusted, even if private; a redirect to another private host is refused
    trusted = allowed if allowed is not None else [uri]
    named = {parse(known).authority for known in trusted if known.startswith("https:")}
    for _ in range(_REDIRECTS + 1):
        if allowed is not None:
            check_allowed(uri, allowed)
        parsed = parse(uri)
        if parsed.scheme != "https" or not parsed.host:
            raise SourceRefused(f"{shown(uri)} is refused: not an https address.")
        if parsed.authority not in named and parsed.port != _HTTPS_PORT:
            raise SourceRefused(f"{shown(uri)} is refused: its port is {parsed.port}, not {_HTTPS_PORT}.")
        try:
            with _connected(uri, parsed, must_be_public=parsed.authority not in named) as response:
                if not response.has_redirect_location:
                    _check_status(uri, response)
                    yield response
                    return
                uri = urljoin(uri, response.headers["location"])
        except httpx.TransportError as error:
            raise _RetryableFailure(str(error) or type(error).__name__) from error
        except httpx.InvalidURL as error:
            raise SourceRefused(f"{shown(uri)} is refused: {error}.") from error
    raise SourceRefused(f"{shown(uri)}: more than {_REDIRECTS} redirects.", hint="give the file's final address")


def _check_status(uri: str, response: httpx.Response) -> None:
    code = response.status_code
    if code in _RETRY_CODES:
        raise _RetryableFailure(f"the server answers {code}")
    if code in (401, 403, 407, 451):
        raise SourceRefused(f"{shown(uri)} is refused by its server ({code}).", hint="check the access rights")
    if code != 200:
        raise NotFound(f"{shown(uri)} is not there: the server answers {code}.", hint="check the address")
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):  # a few kilobytes may unpack to more than any disk has
        raise SourceRefused(
            f"{shown(uri)} is refused: the server compresses it ({coding[:50]}), though that was not asked for.",
            hint="let the server send audio as it is",
        )


@contextmanager
def _connected(uri: str, parsed: ParsedUri, *, must_be_public: bool) -> Iterator[httpx.Response]:
    """The answer to a GET of one of the host's addresses; the name is resolved once, and what was checked is connected.

    Through a proxy of the environment the proxy resolves the name, so there only the name's own addresses are checked.
    """
    addresses = _addresses(uri, parsed.host, must_be_public=must_be_public)
    headers = {"Accept-Encoding": "identity"}
    if _is_proxied(parsed.host):
        with httpx.Client(timeout=_TIMEOUT, headers=headers) as client, client.stream("GET", uri) as response:
            yield response
        return
    url = httpx.URL(uri)
    headers["Host"] = url.netloc.decode("ascii")
    # the certificate is checked for the host, whatever address it has
    extensions = {} if addresses == [parsed.host.strip("[]")] else {"sni_hostname": parsed.host}
    with httpx.Client(
        timeout=_TIMEOUT, headers=headers, trust_env=False, verify=httpx.create_ssl_context(trust_env=True)
    ) as client:
        for address in addresses:
            request = client.build_request("GET", url.copy_with(host=address), extensions=extensions)
            try:
                response = client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == addresses[-1]:
                    raise
                continue
            try:
                yield response
            finally:
                response.close()
            return


def _addresses(uri: str, host: str, *, must_be_public: bool) -> list[str]:
    """The addresses of a host, in the system's order of preference.

    Raises:
        SourceRefused: one of them is private (this machine, its network, a cloud's metadata service).
    """
    try:
        resolved = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _RetryableFailure(f"{host} has no address") from error
    addresses = list(dict.fromkeys(str(address[4][0]) for address in resolved))
    if must_be_public and not all(is_public(address) for address in addresses):
        raise SourceRefused(
            f"{shown(uri)} is refused: {host} is a private address.",
            hint="add the host to K2D_ALLOWED_SOURCES if it may be read",
        )
    return addresses


def _is_proxied(host: str) -> bool:
    proxies = getproxies()
    return bool(proxies.get("https") or proxies.get("all")) and not proxy_bypass(host)


def _copy(response: httpx.Response, limit_bytes: int) -> BinaryIO:
    end = time.monotonic() + _DEADLINE_S
    copied = 0
    file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    try:
        for piece in response.iter_raw(_PIECE_BYTES):
            copied += len(piece)
            if copied > limit_bytes:
                raise TooLarge(f"The file has more than {limit_bytes:,} bytes.", hint="split it", limit=limit_bytes)
            if time.monotonic() > end:
                raise TooLarge(
                    f"The download takes more than {_DEADLINE_S:.0f} s.", hint="copy the file to faster storage"
                )
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
