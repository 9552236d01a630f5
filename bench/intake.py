"""How long the API takes to accept a list of URIs, and a worker to look at them.

    python bench/intake.py [--uris 120000] [--real 4096]

Starts an embedded Redis and calls the API in this process, over an empty store in a temporary folder. `--uris` are
posted; none of them exists. Then `--real` small local files are posted, and their describing jobs are run here, one
after the other, as one worker does.
"""

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
from fastapi.testclient import TestClient

from k2d.settings import Settings
from services.filter import jobs
from services.filter.app import create_app
from services.filter.queue import CONTROL
from services.local.redis_server import EmbeddedRedis


def post(api: TestClient, uris: list[str]) -> httpx.Response:
    body = httpx.Request("POST", "http://x", json={"sources": uris}).content
    began, cpu = time.monotonic(), time.process_time()
    answer = api.post("/v1/batches", content=body, headers={"Content-Type": "application/json"})
    took, worked = time.monotonic() - began, time.process_time() - cpu
    print(
        f"{len(uris):,} URIs ({len(body) / 1e6:.1f} MB): {answer.status_code} after {took:.2f} s, {worked:.2f} s of CPU"
    )
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uris", type=int, default=120_000)
    parser.add_argument("--real", type=int, default=4096)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(EmbeddedRedis(folder / "redis"))
        audio = folder / "audio"
        audio.mkdir()
        os.environ |= {
            "K2D_STORE": str(folder / "lake"),
            "K2D_REDIS_URL": redis.url,
            "K2D_ALLOWED_SOURCES": f"s3://corpus/,{audio.as_uri()}/",
            "K2D_LOG_LEVEL": "error",
        }
        app = create_app(Settings(_env_file=None))
        api = stack.enter_context(TestClient(app, base_url="http://127.0.0.1"))
        answer = post(
            api, [f"s3://corpus/lectures/{number // 1000}/{number:07d}.flac" for number in range(options.uris)]
        )
        began = time.monotonic()
        api.get(answer.headers["location"])
        print(f"status while it is prepared: {time.monotonic() - began:.3f} s")
        api.delete(answer.headers["location"])
        app.state.queue.redis.flushall()
        for number in range(options.real):
            (audio / f"{number:06d}.flac").write_bytes(b"x")
        answer = post(api, [path.as_uri() for path in sorted(audio.iterdir())])
        began = time.monotonic()
        for job in app.state.queue.waiting(CONTROL):
            if job.func_name.endswith("describe_part"):
                jobs.describe_part(*job.args)
        took = time.monotonic() - began
        state = api.get(answer.headers["location"]).json()["state"]
        print(f"looked at {options.real:,} local files and made the batch ({state}): {took:.1f} s", end=", ")
        print(f"{options.real / took:,.0f} a second")


if __name__ == "__main__":
    main()
