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
    "GET /v1/draws": _READ,
    "GET /v1/draws/{draw}": _READ,
    "GET /v1/draws/{draw}/segments": _READ,
    "GET /v1/draws/{draw}/calibrations/{calibration}": _READ,
    "GET /v1/segments/{segment}/audio": _READ,
    "GET /v1/reviews": _READ,
    "POST /v1/draws": EndpointAccess(AccessRole.REVIEWER, "draw"),
    "POST /v1/draws/{draw}/calibrations": EndpointAccess(AccessRole.REVIEWER, "calibrate"),
    "POST /v1/reviews": EndpointAccess(AccessRole.REVIEWER),  # each one says itself who wrote it
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
    "GET /review": _PAGE,
    "GET /review/{name}": _PAGE,
    "GET /review/{name}/progress": _PAGE,
    "GET /review/{name}/calibrations/{calibration}": _PAGE,
    "GET /review/{name}/calibrations/{calibration}/policy.yaml": _PAGE,
    "POST /review": EndpointAccess(AccessRole.REVIEWER, "draw", page=True),
    "POST /review/{name}/calibrations": EndpointAccess(AccessRole.REVIEWER, "calibrate", page=True),
}
