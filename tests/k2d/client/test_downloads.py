"""What a client takes from whoever answers, which need not be an API of ours."""

import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from k2d.client.http import Client

NAMES = ("talks/a.srt", "../../up.srt", "/etc/absolute.srt", "talks/../../b.srt")


class Handler(BaseHTTPRequestHandler):
    """Answers every request with subtitles whose names lead elsewhere."""

    def do_GET(self) -> None:
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            for name in NAMES:
                member = tarfile.TarInfo(name)
                member.size = 1
                tar.addfile(member, io.BytesIO(b"x"))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.getvalue())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_names_of_subtitles_lead_below_the_folder_alone(url: str) -> None:
    names = [name for name, content in Client(url).subtitles("talks", "srt") if content == b"x"]
    assert names == ["talks/a.srt", "up.srt", "etc/absolute.srt", "talks/b.srt"]
