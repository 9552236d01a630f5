"""Shared by all tests: a real Redis, the sample audio, the measuring data where it is, a lake with facts in it."""

import os
from collections.abc import Iterator
from pathlib import Path

# Several test processes share few cores. OpenMP's threads wait for work by spinning, which takes what others need:
# torch took three times as long. Read when torch is loaded, so it is set before any other import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import pytest
from places import EXAMPLES, SHARED

from k2d.settings import PREFIX
from services.local.redis_server import EmbeddedRedis

# The default run draws the same examples for everyone; `make test-all` searches at random, and wider. An example that a
# search finds becomes an explicit one (@example), so that everybody runs it from then on. The first use of some tables
# takes seconds, so no single example has a deadline.
hypothesis.settings.register_profile("default", derandomize=True, deadline=None)
hypothesis.settings.register_profile("wide", derandomize=False, deadline=None, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile("default")

os.environ["COLUMNS"] = "120"  # a console takes its width when its module is first imported, by whatever test


@pytest.fixture(autouse=True)
def clean_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No K2D_ variable of whoever runs the tests leaks into them."""
    for name in list(os.environ):
        if name.startswith(PREFIX) and name != "K2D_CACHE":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server (Valkey), started for this session."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of a real S3 server (moto's), started for this session; `buckets.new_bucket` makes buckets."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def examples() -> Path:
    return EXAMPLES


@pytest.fixture(scope="session")
def shared() -> Path:
    """The measuring data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the measuring data (../shared/data) is not on this machine")
    return SHARED
