"""Keys: results are facts named by a hash of everything that went into them."""

import dataclasses
import hashlib
import json
from typing import Any


def digest(*parts: Any) -> str:
    """Hash JSON-able values and dataclasses to 32 hex characters; equal values give equal keys on every machine."""
    canonical = json.dumps(parts, default=_plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"cannot be part of a key: {type(value).__name__}")


def segment_id(chunk_id: str, number: int) -> str:
    """How a segment is called in datasets, so that it can be left out of a later one."""
    return f"{chunk_id}.{number:03d}"
