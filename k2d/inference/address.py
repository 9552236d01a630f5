"""Where a model is: in this process, or behind inference servers."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from k2d.errors import BadRequest

LOCAL = "local:"
SERVED = {"served:teacher": "teacher", "served:validator": "validator"}  # in a batch: the servers of this setting
HTTP = ("http", "https")
GRPC = ("grpc", "grpcs")
HINT = "http://host:port, https://…, grpc://host:port/teacher, grpcs://…; several of one kind, comma-separated"


def plain(reference: str) -> str:
    """A model reference as the rest of the house knows it: `local:` says nothing that its absence does not."""
    return reference.removeprefix(LOCAL)


def is_address(reference: str) -> bool:
    """Whether a reference names servers, not a model."""
    return "://" in reference


def split(reference: str) -> Sequence[str]:
    """The servers of an address, each checked, without trailing slashes.

    Raises:
        BadRequest: a scheme nobody speaks, no host, schemes of two kinds, a Triton address without its model.
    """
    addresses = [part.strip().rstrip("/") for part in reference.split(",") if part.strip()]
    schemes = {_checked(address) for address in addresses}
    if len(schemes) > 1 and not (schemes <= set(HTTP) or schemes <= set(GRPC)):
        raise BadRequest(f"servers of two kinds in one address: {reference[:200]!r}", hint=HINT)
    if len(set(addresses)) < len(addresses):
        raise BadRequest(f"a server is named twice: {reference[:200]!r}", hint=HINT)
    return addresses


def scheme(address: str) -> str:
    """How a server is spoken to."""
    return urlsplit(address).scheme


def _checked(address: str) -> str:
    try:
        parts = urlsplit(address)
        known = parts.scheme in (*HTTP, *GRPC) and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number
        known = False
    if not known:
        raise BadRequest(f"no address of an inference server: {address[:200]!r}", hint=HINT)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadRequest("an address has host, port and path only", hint="the token is K2D_API_TOKEN")
    model = parts.path.strip("/")
    if parts.scheme in GRPC and (not model or "/" in model):
        raise BadRequest(f"which of Triton's models? {address[:200]!r}", hint="grpc://host:8001/teacher")
    if parts.scheme in HTTP and model:
        raise BadRequest(f"an inference server has no path: {address[:200]!r}", hint="http://host:port")
    return parts.scheme
