"""Probes: trained CTC networks that check labels (k2d.validators.probe), stored under the hash of their bytes."""

import hashlib
from typing import Final

from k2d.errors import NotFound
from k2d.store.base import LakePart, safe_name

DIGEST_DIGITS: Final = 16  # hex digits of the sha256; chosen: unique within a lake, short enough to copy
_SUFFIX: Final = ".safetensors"


class Probes(LakePart):
    """Probes: probes/<digest>.safetensors (listeners/ in stores of version 0.1).

    digest = lake.probes.put(Path("probe.safetensors").read_bytes())  # used as the validator "probe:<digest>"
    """

    def put(self, data: bytes) -> str:
        """Store a probe's file and return its digest. The same bytes are stored once.

        Raises:
            StoreError
        """
        digest = hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS]
        self.files.create(_path(digest), data)
        return digest

    def get(self, digest: str) -> bytes:
        """Read a probe's file.

        Raises:
            NotFound, StoreError
        """
        try:
            return self.files.read(self.located(_path(digest)))
        except NotFound as error:
            known = ", ".join(self.digests()[:5]) or "none yet"
            raise NotFound(
                f"no probe has the digest {digest[:100]!r}", hint=f"`k2d probe` trains one; the store has: {known}"
            ) from error

    def digests(self) -> list[str]:
        """List the digests of all probes."""
        names = [path.rpartition("/")[2] for folder in self.folders_of("probes") for path in self.files.listing(folder)]
        return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def _path(digest: str) -> str:
    return f"probes/{safe_name(digest)}{_SUFFIX}"
