"""Which URIs a batch may refer to. The list is the operator's; everything that is not clearly inside it is refused."""

import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, unquote_to_bytes

from k2d.errors import SourceRefused

SCHEMES = ("file", "s3", "https", "lake")
_HINT = "the operator lists what may be read in K2D_ALLOWED_SOURCES, e.g. file:///srv/audio/,s3://bucket/"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOST = re.compile(r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")
_HTTPS_PORT = 443
_DECODINGS = 3  # a server, a proxy and a library may each undo one layer of percent-encoding
_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".home.arpa")


@dataclass(frozen=True, slots=True)
class Place:
    """A URI taken apart. `authority` is a bucket or host:port; empty in the prefix "https://": any public host."""

    scheme: str
    authority: str
    path: str  # begins with "/", or is empty; without the query
    host: str = ""


def check_allowed(uri: str, allowed_prefixes: Sequence[str]) -> None:
    """Return when the URI lies inside an allowed prefix; otherwise refuse.

    A prefix covers itself and what lies below it by whole path parts: file:///srv/audio covers file:///srv/audio/a.wav,
    not file:///srv/audio-private/a.wav. Files are judged by where they really are, after symbolic links. Uploads
    (lake://uploads/…) are always allowed. The prefix "https://" stands for any public host; a private, loopback or
    link-local host must be named by its own prefix.

    Raises:
        SourceRefused: the URI is outside, or written in a way that two programs might read differently.
    """
    place = parse(uri)
    if place.scheme == "lake":
        if not place.path.startswith("/uploads/"):
            _refuse(uri, "only uploads may be referred to in the lake")
        return
    for prefix in allowed_prefixes:
        if prefix.partition("://")[0].lower() == place.scheme and _covers(parse(prefix), prefix, place):
            return
    _refuse(uri, "it is outside the allowed sources")


def parse(uri: str) -> Place:
    """Take a URI apart, strictly.

    Raises:
        SourceRefused: an unknown scheme; user names, odd hosts, traversal or control characters in it.
    """
    scheme, mark, rest = uri.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in SCHEMES:
        _refuse(uri, f"sources are {', '.join(f'{known}://' for known in SCHEMES)}")
    if scheme == "file":
        return Place(scheme, "", os.fspath(local_path(uri)))
    if any(ord(char) <= 0x20 or ord(char) == 0x7F or char == "\\" for char in uri):
        _refuse(uri, "it holds white space, control characters or backslashes")
    if scheme == "lake":
        return Place(scheme, "", _plain_path(uri, f"/{rest}"))
    location = re.split(r"[?#]", rest, maxsplit=1)[0] if scheme == "https" else rest
    authority, slash, path = location.partition("/")
    path = _plain_path(uri, slash + path)
    if scheme == "s3":
        if not _BUCKET.fullmatch(authority):
            _refuse(uri, "its bucket has no valid name")
        return Place(scheme, authority, path)
    if not authority:
        return Place(scheme, "", path)
    found = _HOST.fullmatch(authority.lower())
    if not found:
        _refuse(uri, "its host is not a plain ASCII name or address (no user names; other scripts as xn--…)")
    host = found["host"].rstrip(".")
    return Place(scheme, f"{host}:{int(found['port'] or _HTTPS_PORT)}", path, host)


def local_path(uri: str) -> Path:
    """The file a file:// URI names; percent-encoding is undone once, any bytes are possible.

    Raises:
        SourceRefused: another host's file, a relative path, `..` or a NUL in it.
    """
    rest = uri.partition("://")[2]
    host, slash, path = rest.partition("/")
    if host.lower() not in ("", "localhost") or not slash:
        _refuse(uri, "a file URI has three slashes and an absolute path: file:///srv/audio/a.wav")
    raw = unquote_to_bytes((slash + path).encode("utf-8", "surrogateescape"))
    if b"\0" in raw or b".." in raw.split(b"/"):
        _refuse(uri, "its path climbs with `..` or holds a NUL")
    return Path(os.fsdecode(raw))


def is_private(host: str) -> bool:
    """Whether a host as written is an address or a name that no public server has. Asks no name server."""
    name = host.strip("[]")
    if name == "localhost" or name.endswith(_PRIVATE_NAMES):
        return True
    try:
        return not is_public(name)
    except ValueError:
        pass
    try:  # 2130706433, 0x7f.1 and 127.1 are addresses to a resolver
        return not is_public(socket.inet_ntoa(socket.inet_aton(name)))
    except OSError:
        return "." not in name  # a bare name is a neighbour's


def is_public(address: str) -> bool:
    """Whether an IP address is reachable from everywhere.

    Raises:
        ValueError: not an IP address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if inner is not None:
            return inner.is_global
    return parsed.is_global and not parsed.is_multicast


def shown(uri: str) -> str:
    """A URI for messages and names: valid Unicode, and without its query, which may hold a signature."""
    visible = uri if uri.startswith("file:") else re.split(r"[?#]", uri, maxsplit=1)[0]
    return visible.encode("utf-8", "backslashreplace").decode()


def _covers(prefix: Place, written: str, place: Place) -> bool:
    if place.scheme == "file":
        base, path = os.path.realpath(prefix.path), os.path.realpath(place.path)
        return _below(base + "/" if written.endswith("/") else base, path)
    if prefix.authority != place.authority:
        return place.scheme == "https" and not prefix.authority and not is_private(place.host)
    return bool(place.authority) and _below(prefix.path, place.path)


def _below(prefix: str, path: str) -> bool:
    whole = "/" + prefix.strip("/") if prefix.strip("/") else ""
    return path.startswith(whole + "/") or (path == whole and not prefix.endswith("/"))


def _plain_path(uri: str, path: str) -> str:
    """The path as written, when no reading of it climbs: not decoded, decoded, or decoded again."""
    decoded = path
    for _ in range(_DECODINGS):
        parts = [part.split(";")[0] for part in decoded.split("/")]
        if "." in parts or ".." in parts or "\0" in decoded or "\\" in decoded:
            _refuse(uri, "its path climbs, or holds backslashes or a NUL")
        if decoded.count("/") != path.count("/"):
            _refuse(uri, "its path holds an encoded slash")
        decoded = unquote(decoded)
    return path


def _refuse(uri: str, why: str) -> NoReturn:
    raise SourceRefused(f"{shown(uri)!r} is refused: {why}.", hint=_HINT, uri=shown(uri))
