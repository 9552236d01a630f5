"""Model references that are addresses of inference servers: recognising, splitting and checking them."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from k2d.errors import BadRequest

LOCAL: Final = "local:"
# A batch records these in place of an address; each stands for the servers in the setting of that name
SERVED: Final = {"served:teacher": "teacher", "served:validator": "validator"}
HTTP: Final = ("http", "https")
GRPC: Final = ("grpc", "grpcs")
HINT: Final = "http://host:port, https://…, grpc://host:port/teacher, grpcs://…; several of one kind, comma-separated"


def plain(reference: str) -> str:
    """A model reference without the optional prefix `local:`.

    >>> plain("local:packaged:whisper-base")
    'packaged:whisper-base'
    """
    return reference.removeprefix(LOCAL)


def is_address(reference: str) -> bool:
    """Whether a reference is an address of servers, not a model."""
    return "://" in reference


def split(reference: str) -> Sequence[str]:
    """Split an address into those of its servers, and check each.

        >>> split("http://gpu1:8080, http://gpu2:8080/")
        ['http://gpu1:8080', 'http://gpu2:8080']

    Raises:
        BadRequest: an unknown scheme, no host, both HTTP and gRPC, a Triton address without its model.
    """
    addresses = [part.strip().rstrip("/") for part in reference.split(",") if part.strip()]
    schemes = {_checked(address) for address in addresses}
    if len(schemes) > 1 and not (schemes <= set(HTTP) or schemes <= set(GRPC)):
        raise BadRequest(f"servers of two kinds in one address: {reference[:200]!r}", hint=HINT)
    if len(set(addresses)) < len(addresses):
        raise BadRequest(f"a server is named twice: {reference[:200]!r}", hint=HINT)
    return addresses


def scheme(address: str) -> str:
    """The scheme of an address: "http", "https", "grpc" or "grpcs"."""
    return urlsplit(address).scheme


def _checked(address: str) -> str:
    try:
        parts = urlsplit(address)
        valid = parts.scheme in (*HTTP, *GRPC) and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # the port is not a number
        valid = False
    if not valid:
        raise BadRequest(f"not an address of an inference server: {address[:200]!r}", hint=HINT)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadRequest("an address has host, port and path only", hint="set the token in K2D_API_TOKEN")
    model = parts.path.strip("/")
    if parts.scheme in GRPC and (not model or "/" in model):
        raise BadRequest(
            f"the address does not name a model of the Triton server: {address[:200]!r}",
            hint="grpc://host:8001/teacher",
        )
    if parts.scheme in HTTP and model:
        raise BadRequest(f"an inference server's address has no path: {address[:200]!r}", hint="http://host:port")
    return parts.scheme
