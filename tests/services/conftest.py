"""A teacher with Whisper base on a server that the tests of services share, and another one that they may kill."""

from collections.abc import Iterator

import pytest
from servers import TOKEN, Server, serve


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Small limits, so that a queue is soon full and a recording soon too long."""
    folder = tmp_path_factory.mktemp("server")
    server = serve(folder / "log", api_token=TOKEN, max_waiting=8, batch_size=4, max_recording_s=120)
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def killable_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = serve(tmp_path_factory.mktemp("killable") / "log", api_token=TOKEN, idle_unload_s=1)
    yield server
    server.stop()


@pytest.fixture
def killable(killable_process: Server) -> Server:
    """A server that a test may kill or stop: it is started again for the next."""
    if killable_process.process.poll() is not None:
        killable_process.restart()
        killable_process.wait_ready()
    return killable_process
