"""The labeling API's endpoints: the least role of each, and its name in the audit log. A test has every route here."""

from collections.abc import Mapping
from typing import Final

from k2d.store.access import AccessRole
from services.web.access import EVERY_HOST, OPEN, EndpointAccess

_READ: Final = EndpointAccess(AccessRole.VIEWER)
_PAGE: Final = EndpointAccess(AccessRole.VIEWER, page=True)

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
    "POST /v1/batches": EndpointAccess(AccessRole.OPERATOR, "post"),
    "DELETE /v1/batches/{batch}": EndpointAccess(AccessRole.OPERATOR, "cancel"),
    "POST /v1/batches/{batch}/retry": EndpointAccess(AccessRole.OPERATOR, "retry"),
    "POST /v1/resume": EndpointAccess(AccessRole.OPERATOR, "resume"),
    "POST /v1/datasets": EndpointAccess(AccessRole.OPERATOR, "freeze"),
    "DELETE /v1/datasets/{name}": EndpointAccess(AccessRole.ADMIN, "delete"),
    # the console (services/filter/console)
    "GET /static/{name:path}": OPEN,
    "GET /sign-in": OPEN,
    "POST /sign-in": OPEN,
    "POST /sign-out": OPEN,
    "GET /preferences": OPEN,
    "GET /": _PAGE,
    "GET /batches": _PAGE,
    "GET /batches/new": EndpointAccess(AccessRole.OPERATOR, page=True),
    "GET /batches/{batch}": _PAGE,
    "GET /batches/{batch}/progress": _PAGE,
    "GET /batches/{batch}/subtitles/{form}": _PAGE,
    "GET /batches/{batch}/chunks.csv": _PAGE,
    "POST /batches/{batch}/cancel": EndpointAccess(AccessRole.OPERATOR, "cancel", page=True),
    "POST /batches/{batch}/retry": EndpointAccess(AccessRole.OPERATOR, "retry", page=True),
    "GET /datasets": _PAGE,
    "GET /datasets/{name}": _PAGE,
    "GET /datasets/{name}/rows/{shard}/{row}": _PAGE,
    "GET /datasets/{name}/export/{format}": _PAGE,
    "POST /datasets/{name}/delete": EndpointAccess(AccessRole.ADMIN, "delete", page=True),
    "GET /runs": _PAGE,
    "GET /runs/{name}": _PAGE,
    "GET /runs/{name}/state": _PAGE,
    "GET /runs/{name}/curves": _PAGE,
    "GET /runs/{name}/evaluations/{key}/clips/{line}": _PAGE,
    "GET /fleet": _PAGE,
    "GET /fleet/state": _PAGE,
    "GET /keys": EndpointAccess(AccessRole.ADMIN, page=True),
    "POST /keys": EndpointAccess(AccessRole.ADMIN, "create key", page=True),
    "POST /keys/{key_id}/revoke": EndpointAccess(AccessRole.ADMIN, "revoke key", page=True),
    "GET /audit-log": EndpointAccess(AccessRole.ADMIN, page=True),
    "GET /batches/{batch}/explore": _PAGE,
    "GET /batches/{batch}/explore/panel": _PAGE,
    "GET /batches/{batch}/explore/curve.json": _PAGE,
    "GET /batches/{batch}/explore/measures.json": _PAGE,
    "GET /batches/{batch}/explore/curve.csv": _PAGE,
    "POST /batches/{batch}/explore/freeze": EndpointAccess(AccessRole.OPERATOR, "freeze", page=True),
    "GET /batches/{batch}/chunks": _PAGE,
    "GET /chunks/{chunk_id}": _PAGE,
}
