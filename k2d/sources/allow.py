"""The allow-list of source URIs. The operator sets it; a URI that is not clearly inside it is refused."""

import fcntl
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import unquote, unquote_to_bytes

from k2d.errors import SourceRefused

SCHEMES: Final = ("file", "s3", "https", "lake")
_HINT: Final = "K2D_ALLOWED_SOURCES lists the prefixes that may be read, e.g. file:///srv/audio/,s3://bucket/"
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOST: Final = re.compile(r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")
_HTTPS_PORT: Final = 443
_DECODINGS: Final = 3  # a server, a proxy and a library may each undo one layer of percent-encoding
_F_GETPATH_BYTES: Final = 1024  # macOS: MAXPATHLEN
# Forms of IPv6 addresses that contain an IPv4 address, to which a gateway or the system itself may pass packets on:
# prefix, and how many bits are right of the IPv4 address
_EMBEDDED_IPV4: Final = tuple(
    (ipaddress.IPv6Network(prefix), shift)
    for prefix, shift in (
        ("::ffff:0:0/96", 0),  # IPv4-mapped (RFC 4291)
        ("::/96", 0),  # IPv4-compatible, deprecated (RFC 4291)
        ("::ffff:0:0:0/96", 0),  # IPv4-translated (RFC 2765)
        ("64:ff9b::/96", 0),  # NAT64 (RFC 6052)
        ("2002::/16", 80),  # 6to4 (RFC 3056)
    )
)
_LOCAL_NAT64: Final = ipaddress.IPv6Network(
    "64:ff9b:1::/48"
)  # of the local network (RFC 8215): nobody knows its layout
_METADATA: Final = ipaddress.ip_address("168.63.129.16")  # Azure's metadata server has a public address
_PRIVATE_NAMES: Final = (".localhost", ".local", ".internal", ".home.arpa")


@dataclass(frozen=True, slots=True)
class ParsedUri:
    """The parts of a source URI."""

    scheme: str
    authority: str  # bucket, or host:port; empty for files, uploads and the prefix "https://"
    path: str  # starts with "/", or is empty; without the query
    host: str = ""  # of https
    port: int = _HTTPS_PORT  # of https


def check_allowed(uri: str, allowed_prefixes: Sequence[str]) -> None:
    """Refuse a URI that lies in none of the allowed prefixes.

        check_allowed("s3://bucket/talks/a.flac", ["file:///srv/audio/", "s3://bucket/"])  # returns None

    A prefix covers itself and everything below it, by whole path components: file:///srv/audio covers
    file:///srv/audio/a.wav, but not file:///srv/audio-private/a.wav. For files, symbolic links are resolved first.
    Uploads (lake://uploads/…) are always allowed. The prefix "https://" covers port 443 of every public host;
    another port, and a private, loopback or link-local host, must be named by its own prefix.

    Raises:
        SourceRefused: the URI is outside, or ambiguous, so that two programs might read it differently.
    """
    parsed = parse(uri)
    if parsed.scheme == "lake":
        if not parsed.path.startswith("/uploads/"):
            _refuse(uri, "lake:// URIs may only refer to uploads")
        return
    for prefix in allowed_prefixes:
        if prefix.partition("://")[0].lower() == parsed.scheme and _covers(parse(prefix), prefix, parsed):
            return
    _refuse(uri, "it is outside the allowed sources")


def check_opened(uri: str, descriptor: int, allowed_prefixes: Sequence[str]) -> None:
    """Refuse a file that is open, unless it lies in one of the allowed prefixes: links may have changed meanwhile.

    Raises:
        SourceRefused: it lies elsewhere.
    """
    path = _path_of(descriptor)
    for prefix in allowed_prefixes:
        if prefix.partition("://")[0].lower() == "file" and _below(_base(parse(prefix), prefix), path):
            return
    _refuse(uri, "it is outside the allowed sources")


def _path_of(descriptor: int) -> str:
    """The path of an open file, as the system knows it."""
    if sys.platform == "darwin":
        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(_F_GETPATH_BYTES)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{descriptor}")


def parse(uri: str) -> ParsedUri:
    """Parse a source URI strictly.

    Raises:
        SourceRefused: an unknown scheme; a user name, a malformed host, `..` or control characters in it.
    """
    scheme, mark, rest = uri.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in SCHEMES:
        _refuse(uri, f"its scheme is none of {', '.join(f'{known}://' for known in SCHEMES)}")
    if scheme == "file":
        return ParsedUri(scheme, "", os.fspath(local_path(uri)))
    if any(ord(char) <= 0x20 or ord(char) == 0x7F or char == "\\" for char in uri):
        _refuse(uri, "it contains white space, control characters or backslashes")
    if scheme == "lake":
        return ParsedUri(scheme, "", _plain_path(uri, f"/{rest}"))
    location = re.split(r"[?#]", rest, maxsplit=1)[0] if scheme == "https" else rest
    authority, slash, path = location.partition("/")
    path = _plain_path(uri, slash + path)
    if scheme == "s3":
        if not _BUCKET.fullmatch(authority):
            _refuse(uri, "its bucket name is not valid")
        return ParsedUri(scheme, authority, path)
    if not authority:
        return ParsedUri(scheme, "", path)
    match = _HOST.fullmatch(authority.lower())
    if not match:
        _refuse(uri, "its host is not a plain ASCII name or address (no user names; other scripts as xn--…)")
    host = match["host"].rstrip(".")
    port = int(match["port"] or _HTTPS_PORT)
    return ParsedUri(scheme, f"{host}:{port}", path, host, port)


def local_path(uri: str) -> Path:
    """The path that a file:// URI names, percent-decoded once; it may contain any bytes.

    Raises:
        SourceRefused: a file on another host, a relative path, `..` or a NUL in it.
    """
    rest = uri.partition("://")[2]
    host, slash, path = rest.partition("/")
    if host.lower() not in ("", "localhost") or not slash:
        _refuse(uri, "a file URI has three slashes and an absolute path: file:///srv/audio/a.wav")
    raw = unquote_to_bytes((slash + path).encode("utf-8", "surrogateescape"))
    if b"\0" in raw or b".." in raw.split(b"/"):
        _refuse(uri, "its path contains `..` or a NUL")
    return Path(os.fsdecode(raw))


def is_private(host: str) -> bool:
    """Whether a host, as written, is a private address or a name that no public server has. Does not resolve it."""
    name = host.strip("[]")
    if name == "localhost" or name.endswith(_PRIVATE_NAMES):
        return True
    try:
        return not is_public(name)
    except ValueError:
        pass
    try:  # resolvers also accept 2130706433, 0x7f.1 and 127.1 as addresses
        return not is_public(socket.inet_ntoa(socket.inet_aton(name)))
    except OSError:
        return "." not in name  # a name without a domain is in the local network


def is_public(address: str) -> bool:
    """Whether an IP address is globally reachable.

    Raises:
        ValueError: not an IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _LOCAL_NAT64:
            return False
        for network, shift in _EMBEDDED_IPV4:
            if ip in network:
                return is_public(str(ipaddress.IPv4Address((int(ip) >> shift) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast and ip != _METADATA


def shown(uri: str) -> str:
    """A URI for messages and names: valid Unicode, without the query, which may contain a signature."""
    visible = uri if uri.startswith("file:") else re.split(r"[?#]", uri, maxsplit=1)[0]
    return visible.encode("utf-8", "backslashreplace").decode()


def _covers(prefix: ParsedUri, written: str, parsed: ParsedUri) -> bool:
    if parsed.scheme == "file":
        return _below(_base(prefix, written), os.path.realpath(parsed.path))
    if prefix.authority != parsed.authority:
        bare = parsed.scheme == "https" and not prefix.authority
        return bare and parsed.port == _HTTPS_PORT and not is_private(parsed.host)
    return bool(parsed.authority) and _below(prefix.path, parsed.path)


def _base(prefix: ParsedUri, written: str) -> str:
    """The real path of a file prefix; with a slash at its end, it covers what is below it only."""
    base = os.path.realpath(prefix.path)
    return base + "/" if written.endswith("/") else base


def _below(prefix: str, path: str) -> bool:
    whole = "/" + prefix.strip("/") if prefix.strip("/") else ""
    return path.startswith(whole + "/") or (path == whole and not prefix.endswith("/"))


def _plain_path(uri: str, path: str) -> str:
    """Return the path unchanged if it contains no `..`, whether percent-decoded never, once or several times."""
    decoded = path
    for _ in range(_DECODINGS):
        parts = [part.split(";")[0] for part in decoded.split("/")]
        if "." in parts or ".." in parts or "\0" in decoded or "\\" in decoded:
            _refuse(uri, "its path contains `.`, `..`, a backslash or a NUL")
        if decoded.count("/") != path.count("/"):
            _refuse(uri, "its path contains an encoded slash")
        decoded = unquote(decoded)
    return path


def _refuse(uri: str, why: str) -> NoReturn:
    raise SourceRefused(f"{shown(uri)!r} is refused: {why}.", hint=_HINT, uri=shown(uri))
