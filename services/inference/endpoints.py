"""An inference server's endpoints and the least role of each. A test has every route here."""

from collections.abc import Mapping
from typing import Final

from k2d.store.access import AccessRole
from services.web.access import EVERY_HOST, EndpointAccess

_READ: Final = EndpointAccess(AccessRole.VIEWER)
_COMPUTE: Final = EndpointAccess(AccessRole.OPERATOR, streams=True)  # each has limits of its own

ENDPOINTS: Final[Mapping[str, EndpointAccess]] = {
    **EVERY_HOST,
    "GET /v1/model": _READ,
    "GET /v1/models": _READ,
    "POST /v1/windows:transcribe": _COMPUTE,
    "POST /v1/score": _COMPUTE,
    "POST /v1/audio/transcriptions": _COMPUTE,
}
