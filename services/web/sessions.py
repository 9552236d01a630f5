"""Sessions of browsers: a signed cookie that names the key someone signed in with, and a token against forged requests.

No server keeps anything: the cookie is signed with a secret of the store, which all servers of an installation share.
A key that is revoked ends its sessions.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from itsdangerous import BadData, URLSafeTimedSerializer

from k2d.errors import Forbidden
from k2d.store import Lake
from k2d.store.access import AccessKey

COOKIE: Final = "k2d_session"
CSRF_HEADER: Final = "x-csrf-token"
HOURS: Final = 12  # that a session lasts; chosen: a working day
ANONYMOUS_ID: Final = "anonymous"  # the session of someone who needs no key
TOKEN_ID: Final = "token"  # noqa: S105 – no secret: the session of K2D_API_TOKEN
_FINGERPRINT_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Session:
    """What a session's cookie says, once its signature was checked."""

    key_id: str
    fingerprint: str  # of the key's hash, so that a session ends when K2D_API_TOKEN is changed
    cookie: str


class Sessions:
    """Makes and reads the cookies of sessions.

    sessions = Sessions(Lake("data"))
    cookie = sessions.cookie(key.id, key.sha256)
    sessions.read(cookie).key_id == key.id
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._secret: bytes | None = None

    def cookie(self, key_id: str, sha256: str = "") -> str:
        """The value of a new session's cookie, for a key's id and its hash.

        Raises:
            StoreError: the store's secret cannot be read or made.
        """
        # a session's own random part makes its CSRF token its own
        content = [key_id, sha256[:_FINGERPRINT_DIGITS], secrets.token_hex(8)]
        return str(self._serializer().dumps(content))

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie's value; None if it is forged, altered or too old.

        Raises:
            StoreError
        """
        try:
            key_id, fingerprint, _ = self._serializer().loads(cookie, max_age=HOURS * 3600)
        except (BadData, ValueError, TypeError):
            return None
        return Session(str(key_id), str(fingerprint), cookie)

    def csrf_token(self, cookie: str) -> str:
        """The token that requests of a session carry in the header X-CSRF-Token; other sites cannot know it.

        Raises:
            StoreError
        """
        return hmac.new(self._key(), b"csrf:" + cookie.encode(), hashlib.sha256).hexdigest()

    def check_csrf(self, cookie: str, token: str) -> None:
        """
        Raises:
            Forbidden: this is not the session's token.
            StoreError
        """
        if not hmac.compare_digest(self.csrf_token(cookie).encode(), token.encode("utf-8", "replace")):
            raise Forbidden(
                "the request does not carry this session's token, or the session has ended",
                hint="load the page again",
            )

    def _serializer(self) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._key(), salt="k2d-session", signer_kwargs={"digest_method": hashlib.sha256})

    def _key(self) -> bytes:
        if self._secret is None:
            self._secret = self._lake.access.session_secret()
        return self._secret


def fits(session: Session, key: AccessKey) -> bool:
    """Whether a session was begun with this key."""
    return session.key_id == key.id and session.fingerprint == key.sha256[:_FINGERPRINT_DIGITS]
