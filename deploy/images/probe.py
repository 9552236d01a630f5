"""Health checks for images without curl: exit 0 when healthy, 1 with one line when not. Imports no k2d, to be quick.

python /opt/k2d/probe.py http 8080 /readyz    the server on this port answers 200
python /opt/k2d/probe.py worker               this container's worker reported to Redis within the last minute
"""

import http.client
import os
import socket
import sys
from datetime import UTC, datetime

TIMEOUT_S = 5
# the worker reports every 5 s at work, and at least every 20 s when idle (services/filter/worker.py)
SILENCE_S = 60


def server(port: int, path: str) -> str | None:
    """Return what is wrong with the HTTP server on this port, if anything."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(500).decode("utf-8", "replace")
    except OSError as error:
        return f"port {port} does not answer: {error}"
    finally:
        connection.close()
    return None if answer.status == http.HTTPStatus.OK else f"{path} answers {answer.status}: {body}"


def worker() -> str | None:
    """Return what is wrong with the worker on this host, if anything: Redis has the time of its last heartbeat."""
    from redis import Redis, RedisError

    redis = Redis.from_url(
        os.environ["K2D_REDIS_URL"], socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, decode_responses=True
    )
    try:
        names = sorted(redis.smembers("rq:workers"))
        with redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(name, "hostname", "last_heartbeat")
            workers = pipe.execute()
    except RedisError as error:
        return f"Redis does not answer: {error}"
    beats = [beat for host, beat in workers if host == socket.gethostname() and beat]
    if not beats:
        return "no worker of this host is registered in Redis"
    age_s = min((datetime.now(UTC) - datetime.fromisoformat(beat)).total_seconds() for beat in beats)
    return None if age_s < SILENCE_S else f"the worker's last heartbeat was {age_s:.0f} s ago"


def main(arguments: list[str]) -> str | None:
    match arguments:
        case ["http", port, path]:
            return server(int(port), path)
        case ["worker"]:
            return worker()
        case _:
            return "usage: probe.py http PORT PATH | probe.py worker"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
