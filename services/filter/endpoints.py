"""The labeling API's endpoints: the least role of each, and its name in the audit log. A test has every route here."""

from collections.abc import Mapping
from typing import Final

from k2d.store.access import AccessRole
from services.web.access import EVERY_HOST, EndpointAccess

_READ: Final = EndpointAccess(AccessRole.VIEWER)

ENDPOINTS: Final[Mapping[str, EndpointAccess]] = {
    **EVERY_HOST,
    "GET /v1/batches": _READ,
    "GET /v1/batches/{batch}": _READ,
    "GET /v1/batches/{batch}/events": _READ,
    "GET /v1/chunks": _READ,
    "GET /v1/chunks/{chunk_id}": _READ,
    "GET /v1/chunks/{chunk_id}/audio": _READ,
    "GET /v1/policies": _READ,
    "POST /v1/policies/preview": _READ,  # stores nothing
    "GET /v1/datasets": _READ,
    "GET /v1/datasets/{name}": _READ,
    "GET /v1/datasets/{name}/shards/{number}": _READ,
    "GET /v1/batches/{batch}/sources/{source:path}": _READ,
    "PUT /v1/batches/{batch}/sources/{source:path}": EndpointAccess(AccessRole.OPERATOR, streams=True),
    "POST /v1/batches/{batch}/sources": EndpointAccess(AccessRole.OPERATOR),
    "POST /v1/batches/{batch}/close": EndpointAccess(AccessRole.OPERATOR, "close"),
    "POST /v1/batches": EndpointAccess(AccessRole.OPERATOR, "post", streams=True),
    "DELETE /v1/batches/{batch}": EndpointAccess(AccessRole.OPERATOR, "cancel"),
    "POST /v1/batches/{batch}/retry": EndpointAccess(AccessRole.OPERATOR, "retry"),
    "POST /v1/resume": EndpointAccess(AccessRole.OPERATOR, "resume"),
    "POST /v1/datasets": EndpointAccess(AccessRole.OPERATOR, "freeze"),
    "DELETE /v1/datasets/{name}": EndpointAccess(AccessRole.ADMIN, "delete"),
}
