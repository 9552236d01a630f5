"""What a Redis is, for `k2d doctor`: whether it takes what jobs need, keeps it, and is one that RQ can use."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from k2d.errors import QueueError
from k2d.settings import Settings
from services.filter.redis_url import connect, queue_error, shown

TIMEOUT_S: Final = 3.0
LEAST_VERSION: Final = (5, 0)  # RQ keeps results in streams

RedisCheck = Callable[[Redis], str]


def answers(settings: Settings) -> str:
    """Where a Redis answers, and which version it is.

    Raises:
        QueueError: its address cannot be read, it does not answer, or it refuses the password.
    """
    url = settings.redis_url.get_secret_value()
    with connect(settings, connect_s=TIMEOUT_S, answer_s=TIMEOUT_S) as server:
        try:
            server.ping()
        except RedisError as error:
            raise queue_error(error, settings) from error
        version = _info(server, "server")
    name = version.get("server_name", "redis")
    number = version.get(f"{name}_version") or version.get("redis_version") or "unknown"
    compared = str(version.get("redis_version", "99"))
    if tuple(int(part) for part in compared.split(".")[:2] if part.isdecimal()) < LEAST_VERSION:
        raise QueueError(f"{name} {number} is too old", hint="Redis 5 or newer, or Valkey")
    return f"{name} {number} answers at {shown(url)}"


def run(settings: Settings, check: RedisCheck) -> str:
    """Run one check with a connection of its own.

    Raises:
        QueueError: what the check found, or that the server does not answer.
    """
    with connect(settings, connect_s=TIMEOUT_S, answer_s=TIMEOUT_S) as server:
        try:
            return check(server)
        except RedisError as error:
            raise queue_error(error, settings) from error


def is_one_server(server: Redis) -> str:
    """That it is no replica and no cluster."""
    replication, cluster = _info(server, "replication"), _info(server, "cluster")
    if replication.get("role") in ("slave", "replica"):
        primary = f"{replication.get('master_host')}:{replication.get('master_port')}"
        raise QueueError(f"it is a read-only replica of {primary}", hint=f"name the primary, {primary}")
    if int(cluster.get("cluster_enabled", 0)):
        raise QueueError(
            "it is a cluster, which RQ cannot use", hint="name a single server, or a primary with replicas"
        )
    return "a single server"


def takes_writes(server: Redis) -> str:
    """That it can be written."""
    key = f"k2d:doctor:{uuid.uuid4().hex}"
    server.set(key, 1, ex=60)
    server.delete(key)
    return "it takes writes"


def keeps_keys(server: Redis) -> str:
    """That it never evicts a key: of a job, it would be lost without a sign."""
    memory = _info(server, "memory")
    policy, most = str(memory.get("maxmemory_policy", "")), int(memory.get("maxmemory", 0))
    if policy not in ("", "noeviction"):
        now = "" if most else " (when a maxmemory is set)"
        raise QueueError(f"maxmemory-policy is {policy}: jobs may be evicted{now}", hint="set it to noeviction")
    if most and int(memory.get("used_memory", 0)) > 0.9 * most:
        raise QueueError("more than 90 % of its maxmemory is used: soon it takes no jobs", hint="raise maxmemory")
    return "noeviction" if policy else "the server does not tell its policy; it must be noeviction"


def is_persistent(server: Redis) -> str:
    """That it keeps jobs over a restart."""
    persistence = _info(server, "persistence")
    if int(persistence.get("aof_enabled", 0)):
        if persistence.get("aof_last_write_status", "ok") != "ok":
            raise QueueError("it cannot write its append-only file", hint="free space on its disk")
        return "append-only file"
    points = ""
    with suppress(ResponseError, NoPermissionError):  # managed servers have no CONFIG
        points = str(server.config_get("save").get("save", ""))
    if points:
        return f"snapshots (save {points}): a restart loses what came after the last"
    raise QueueError(
        "it keeps nothing over a restart", hint="set appendonly yes; without it, run `k2d resume` after each restart"
    )


def permits(server: Redis) -> str:
    """That its user may do all that the API and the workers do."""
    refused = list(dict.fromkeys(_refused(server)))
    user = ""
    with suppress(RedisError):
        user = str(server.acl_whoami())
    if refused:
        raise QueueError(
            f"user {user or 'of the address'} may not: {', '.join(refused)}",
            hint="allow it: ACL SETUSER NAME +@all -@dangerous +info +client|list ~rq:* ~rqh:* ~k2d:* &rq:*",
        )
    return f"user {user} may do what jobs need" if user else "all that jobs need is allowed"


def _refused(server: Redis) -> Iterator[str]:
    """The commands and keys of jobs that are not permitted, tried on keys that nobody has."""
    name = f"k2d-doctor-{uuid.uuid4().hex}"
    keys = (f"rq:{name}", f"rqh:{name}", f"k2d:{name}")
    for key in keys:
        yield from _try(f"keys like {key.split(':')[0]}:*", lambda key=key: server.set(key, 1, ex=60))  # type: ignore[misc]
    key = f"rq:{name}:x"
    commands: dict[str, Callable[[], Any]] = {
        "HSET": lambda: server.hset(key, "a", "1"),
        "HGETALL": lambda: server.hgetall(key),
        "HINCRBY": lambda: server.hincrby(key, "b", 1),
        "HDEL": lambda: server.hdel(key, "b"),
        "EXPIRE": lambda: server.expire(key, 60),
        "TTL": lambda: server.ttl(key),
        "PERSIST": lambda: server.persist(key),
        "EXISTS": lambda: server.exists(key),
        "MGET": lambda: server.mget([key]),
        "SADD": lambda: server.sadd(f"{key}:s", "1"),
        "SMEMBERS": lambda: server.smembers(f"{key}:s"),
        "SREM": lambda: server.srem(f"{key}:s", "1"),
        "ZADD": lambda: server.zadd(f"{key}:z", {"1": 1}),
        "ZRANGEBYSCORE": lambda: server.zrangebyscore(f"{key}:z", 0, 1),
        "ZREMRANGEBYSCORE": lambda: server.zremrangebyscore(f"{key}:z", 0, 1),
        "ZCARD": lambda: server.zcard(f"{key}:z"),
        "RPUSH": lambda: server.rpush(f"{key}:l", "1"),
        "LRANGE": lambda: server.lrange(f"{key}:l", 0, -1),
        "LREM": lambda: server.lrem(f"{key}:l", 1, "1"),
        "BLMOVE": lambda: server.blmove(f"{key}:l", f"{key}:m", 0.01),  # type: ignore[arg-type]
        "XADD": lambda: server.xadd(f"{key}:x", {"a": "1"}, maxlen=1),
        "MULTI": lambda: _transact(server, f"{key}:t"),
        "WATCH": lambda: _watch(server, key),
        "EVAL": lambda: server.eval("return 1", 0),
        "SUBSCRIBE": lambda: _subscribe(server, f"rq:pubsub:{name}"),
        "INFO": lambda: server.info("server"),
        "TIME": lambda: server.time(),
        "CLIENT SETNAME": lambda: server.client_setname(name),
        "CLIENT LIST": lambda: server.client_list(),
        "DEL": lambda: server.delete(*keys, *(f"{key}{end}" for end in ("", *(f":{kind}" for kind in "szlmxt")))),
    }
    for command, call in commands.items():
        yield from _try(command, call)


def _try(what: str, call: Callable[[], Any]) -> Iterator[str]:
    try:
        call()
    except NoPermissionError:
        yield what
    except ResponseError as error:
        if "NOPERM" in str(error) or "permission" in str(error):
            yield what
        # another answer, such as that of a server without this command, is no question of permissions


def _transact(server: Redis, key: str) -> None:
    with server.pipeline(transaction=True) as pipe:
        pipe.set(key, 1, ex=60)
        pipe.execute()


def _watch(server: Redis, key: str) -> None:
    with server.pipeline() as pipe:
        pipe.watch(key)  # type: ignore[no-untyped-call]


def _subscribe(server: Redis, channel: str) -> None:
    with server.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(channel)
        pubsub.get_message(timeout=1.0)


def _info(server: Redis, section: str) -> dict[str, Any]:
    """A section of INFO; empty where the server does not tell."""
    try:
        return dict(server.info(section))
    except (NoPermissionError, ResponseError):
        return {}


CHECKS: Final[tuple[tuple[str, bool, RedisCheck], ...]] = (  # name, whether jobs need it, check
    ("Redis: one server", True, is_one_server),
    ("Redis: permissions", True, permits),
    ("Redis: writable", True, takes_writes),
    ("Redis: eviction", True, keeps_keys),
    ("Redis: persistence", False, is_persistent),
)
