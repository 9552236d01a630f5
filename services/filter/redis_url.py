"""The address of Redis: read with errors that say what to change and never show a password, and what to do about one
that does not answer."""

import re
from typing import Final
from urllib.parse import urlsplit

import redis
from redis.exceptions import RedisError

from k2d.errors import QueueError
from k2d.settings import Settings

EMBEDDED_PREFIX: Final = "k2d-redis-"  # of the folder with the socket of the Redis that `k2d up` starts
SCHEMES: Final = ("redis", "rediss", "unix")
_FORM: Final = "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://… with TLS, or unix:///PATH"
_ENCODE: Final = "in a user's name or password write # as %23, / as %2F, ? as %3F, @ as %40, : as %3A and % as %25"
# what a server answers that is there and takes no writes
_REFUSALS: Final = (
    (r"MISCONF", "cannot write its own file, so it takes no jobs: its disk is full, or it may not write there"),
    (r"READONLY", "is a read-only replica"),
    (r"\bOOM\b|maxmemory", "is full: it has reached its maxmemory"),
    (r"NOAUTH|WRONGPASS|invalid username-password|[Aa]uthentication", "refuses the user or the password"),
    (r"NOPERM|no permissions|has no permission", "does not let this user do what jobs need"),
    (r"LOADING|BusyLoading", "is loading its file"),
    (r"CLUSTERDOWN|MOVED|CROSSSLOT", "is a cluster, which RQ cannot use"),
)


def connect(settings: Settings, *, connect_s: float = 3, answer_s: float = 10) -> redis.Redis:
    """A client of the Redis in the settings; nothing is sent yet.

    Args:
        connect_s: time-out of a connection, seconds.
        answer_s: time-out of an answer, seconds: a hanging Redis must not hang the API.

    Raises:
        QueueError: K2D_REDIS_URL cannot be read.
    """
    url = settings.redis_url.get_secret_value()
    check(url)
    try:
        opened = redis.Redis.from_url(
            url, socket_connect_timeout=connect_s, socket_timeout=answer_s, health_check_interval=30
        )
        pool = opened.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # refuses unknown options; connects to nothing
    except (ValueError, TypeError, RedisError):
        # from None: the messages of both libraries may have a part of the password
        raise QueueError(
            "K2D_REDIS_URL has an option that redis-py does not know", hint=f"its form is {_FORM}"
        ) from None
    return opened


def check(url: str) -> None:
    """Raise QueueError unless an address of Redis can be read as it was meant.

    Passwords with special characters are read wrongly, or not at all, without a message that says so.
    """
    scheme = url.split("://", 1)[0]
    if scheme not in SCHEMES or "://" not in url:
        raise QueueError("K2D_REDIS_URL is no address of a Redis", hint=f"its form is {_FORM}")
    try:
        parts = urlsplit(url)
        _ = parts.port
        is_readable = True
    except ValueError:
        is_readable = False
    rest = url.split("://", 1)[1]
    after_host = rest[len(parts.netloc) :] if is_readable else ""
    if not is_readable or "#" in rest or (scheme != "unix" and "@" in after_host):
        raise QueueError("K2D_REDIS_URL cannot be read: has its password a special character?", hint=_ENCODE)
    if scheme != "unix" and (database := parts.path.strip("/")) and not database.isdecimal():
        raise QueueError("K2D_REDIS_URL ends with a database that is no number", hint=f"its form is {_FORM}; {_ENCODE}")


def shown(url: str) -> str:
    """An address without user, password and options, for messages.

    shown("redis://me:secret@host:6379/0")  -> "redis://host:6379/0"
    """
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rsplit('@', 1)[-1].split('?', 1)[0]}"


def is_embedded(settings: Settings) -> bool:
    """Whether the settings name a Redis that `k2d up` started; it hands its address to the API and the workers."""
    return f"/{EMBEDDED_PREFIX}" in settings.redis_url.get_secret_value().partition("unix://")[2]


def refusal(error: RedisError) -> str | None:
    """Why a server that answers does not take jobs; None for an error of another kind."""
    text = f"{type(error).__name__} {error}"
    return next((why for pattern, why in _REFUSALS if re.search(pattern, text)), None)


def queue_error(error: RedisError, settings: Settings) -> QueueError:
    """An error of Redis as one that says what happened, and what whoever reads it can do in this set-up."""
    why = refusal(error)
    message = f"Redis {why}" if why else f"Redis does not answer: {_first_line(error)}"
    return QueueError(message, hint=_hint(settings, refused=why is not None))


def _hint(settings: Settings, *, refused: bool) -> str:
    if is_embedded(settings):
        if refused:
            return "free space where the store is; `k2d up` goes on by itself"
        return "`k2d up` starts its Redis again within seconds; if it has ended too, start it again"
    if "redis_url" not in settings.model_fields_set:
        return f"none was named, so {shown(settings.redis_url.get_secret_value())} was tried; `k2d up` brings its own"
    return "check the server that K2D_REDIS_URL names; `k2d doctor` says more"


def _first_line(error: RedisError) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
