"""Keys of the labeling API and the inference servers: who may do what. Only a hash of each key is stored."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from k2d.errors import BadRequest, Conflict, DamagedFile, NotFound, described
from k2d.store.base import LakePart, safe_name
from k2d.store.guard import damaged
from k2d.store.parquet import dumps

SECRET_BYTES: Final = 32  # 256 random bits: a fast hash is enough, there is nothing to guess
_ID_BYTES: Final = 6
_KEY: Final = re.compile(r"k2d_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_SESSION: Final = "access/session.json"
_NAME: Final = re.compile(r"[\w.@ -]{1,100}")


class AccessRole(StrEnum):
    """What a key may do; each role may do all that those before it may."""

    VIEWER = "viewer"  # reads everything: batches, chunks and their audio, datasets
    REVIEWER = "reviewer"  # and writes down what is said in reviewed segments
    OPERATOR = "operator"  # and posts, cancels, retries and freezes, and uses the inference servers
    ADMIN = "admin"  # and deletes

    def covers(self, least: "AccessRole") -> bool:
        """Whether a key of this role may do what needs at least the role `least`."""
        order = list(AccessRole)
        return order.index(self) >= order.index(least)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key as it is stored: everything but the key itself."""

    id: str  # part of the key; not secret
    name: str  # for people: whose it is
    role: AccessRole
    sha256: str  # of the whole key
    created_at: str
    created_by: str
    revoked_at: str | None = None
    error: str | None = None  # why its record cannot be read; nothing but the id is known then, and it opens nothing


class AccessKeys(LakePart):
    """Keys: access/keys/<id>.json, and access/used/<id>.json with the time of a key's last use.

    key, secret = lake.access.create("ci", AccessRole.OPERATOR, created_by="local:ada")
    matching(lake.access.all(), secret) == key
    """

    def create(self, name: str, role: AccessRole, *, created_by: str) -> tuple[AccessKey, str]:
        """Make a key and store its hash; returns the key's record and the key, which cannot be had again.

        Raises:
            BadRequest: the name is empty, too long, or has unusual characters.
            Conflict: a key of this name is in use.
            StoreError
        """
        if not _NAME.fullmatch(name):
            raise BadRequest(
                f"not a valid name of a key: {name[:100]!r}",
                hint="1 to 100 letters, digits, spaces, . _ @ -",
                parameter="name",
                value=name[:100],
            )
        if any(key.name == name and key.revoked_at is None for key in self.all()):
            raise Conflict(
                f"there is a key named {name!r}", hint="take another name, or revoke that one first", key=name
            )
        key_id = secrets.token_hex(_ID_BYTES)
        secret = f"k2d_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
        key = AccessKey(key_id, name, role, hash_of(secret), _now(), created_by)
        self.write_document(_path(key_id), key)
        return key, secret

    def all(self) -> list[AccessKey]:
        """All keys, oldest first, the revoked ones too, and those whose record is damaged (`error`).

        Raises:
            StoreError
        """
        paths = [path for path in self.files.listing("access/keys") if path.endswith(".json")]
        keys = self.files.many(self._read, paths)
        return sorted(keys, key=lambda key: (key.created_at, key.id))

    def revoke(self, id_or_name: str) -> AccessKey:
        """Revoke a key by its id or name; its record stays. Returns the record.

        Raises:
            NotFound: no key in use has this id or name.
            StoreError
        """
        for key in self.all():
            if id_or_name in (key.id, key.name) and key.revoked_at is None:
                revoked = replace(key, revoked_at=_now(), error=None)
                self.write_document(_path(key.id), revoked)
                return revoked
        hint, key_id = "`k2d keys list` lists them", id_or_name[:100]
        raise NotFound(f"no key in use has the id or name {key_id!r}", hint=hint, key=key_id)

    def mark_used(self, key_id: str) -> None:
        """Store that a key is used now."""
        self.write_document(f"access/used/{safe_name(key_id)}.json", {"at": _now()})

    def last_used(self, key_id: str) -> str | None:
        """When a key was last used, as ISO 8601 in UTC; None if never."""
        try:
            return self.read_use(f"access/used/{safe_name(key_id)}.json").get("at")
        except (NotFound, DamagedFile):
            return None

    def read_use(self, path: str) -> dict[str, str]:
        """Read the record of a key's last use.

        Raises:
            NotFound, DamagedFile, StoreError
        """
        document: dict[str, str] = self.read_document(path, dict[str, str])
        return document

    def session_secret(self) -> bytes:
        """The secret with which the console signs its sessions, access/session.json; made when it is first needed.

        Raises:
            StoreError
        """
        try:
            document: dict[str, str] = self.read_document(_SESSION, dict[str, str])
        except NotFound:
            self.files.create(_SESSION, dumps({"secret": secrets.token_hex(SECRET_BYTES)}))
            document = self.read_document(_SESSION, dict[str, str])  # of two servers at once one has made it
        try:
            return bytes.fromhex(document["secret"])
        except (KeyError, ValueError) as error:
            raise damaged(_SESSION, "it holds no secret; delete it, and everybody signs in again") from error

    def _read(self, path: str) -> AccessKey:
        try:
            key: AccessKey = self.read_document(path, AccessKey)
        except DamagedFile as error:
            key_id = path.rpartition("/")[2].removesuffix(".json")
            return AccessKey(key_id, "", AccessRole.VIEWER, "", "", "", error=described(error))
        return key


def matching(keys: Sequence[AccessKey], secret: str) -> AccessKey | None:
    """The key in use whose secret this is; None if there is none. Every key is compared, each in constant time."""
    digest = hash_of(secret)
    match = None
    for key in keys:
        if secrets.compare_digest(key.sha256.encode(), digest.encode()) and key.revoked_at is None and not key.error:
            match = key
    return match


def hash_of(secret: str) -> str:
    """The hash under which a key is stored."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def id_in(secret: str) -> str | None:
    """The id in a key, for logs; None if it has not a key's form."""
    match = _KEY.fullmatch(secret)
    return match[1] if match else None


def _path(key_id: str) -> str:
    return f"access/keys/{safe_name(key_id)}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
