"""Trained listeners in the lake: small networks that doubt labels, stored under the hash of their bytes."""

import hashlib

from k2d.errors import NotFound
from k2d.store.rooted import Rooted, safe

_DIGITS = 16  # of the hash: 64 bits tell all listeners of a lake apart, and a person can still copy them


class Listeners(Rooted):
    """listeners/<digest>.safetensors"""

    def put_listener(self, data: bytes) -> str:
        """Store a listener; returns its digest, the name it is asked for by. The same bytes are stored once.

        Raises:
            StoreError
        """
        digest = hashlib.sha256(data).hexdigest()[:_DIGITS]
        self.files.create(_path(digest), data)
        return digest

    def listener(self, digest: str) -> bytes:
        """The bytes of a listener.

        Raises:
            NotFound, StoreError
        """
        try:
            return self.files.read(_path(digest))
        except NotFound as error:
            known = ", ".join(self.listeners()[:5]) or "none yet"
            raise NotFound(
                f"no listener is called {digest[:100]!r}", hint=f"`k2d probe` trains one; the store has: {known}"
            ) from error

    def listeners(self) -> list[str]:
        """Digests of all listeners."""
        return [path.rpartition("/")[2].partition(".")[0] for path in self.files.listing("listeners")]


def _path(digest: str) -> str:
    return f"listeners/{safe(digest)}.safetensors"
