"""https sources against a real TLS server on loopback: redirects, refusals, limits, retries."""

import gzip
import http.server
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from media_files import encoded
from tls import https_server, trust, write_certificate

from k2d.audio import examine
from k2d.errors import AudioError, NotFound, SourceRefused
from k2d.schema import QuarantineReason, Source
from k2d.sources import describe, open_source

pytest.importorskip("cryptography")

FLAC = encoded("flac", "flac")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path; `hits` counts them."""

    protocol_version = "HTTP/1.1"
    hits: list[str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hits.append(path)
        if path == "/flaky.flac" and self.hits.count(path) < 3:
            return self.answer(503, b"")
        if path in ("/a.flac", "/flaky.flac"):
            return self.answer(200, FLAC, ETag='"v1"')
        if path == "/bomb.flac":
            return self.answer(200, gzip.compress(bytes(10_000_000)), **{"Content-Encoding": "gzip"})
        if path.startswith("/to/"):
            return self.answer(302, b"", Location=path.removeprefix("/to/").replace("~", "/"))
        if path == "/loop":
            return self.answer(302, b"", Location="/loop")
        if path == "/cut.flac":
            self.answer(200, FLAC, declared=len(FLAC) + 1000)
            self.close_connection = True
            return None
        if path == "/endless":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(65536))
            except OSError:
                self.close_connection = True
            return None
        return self.answer({"/secret": 403}.get(path, 404), b"")

    def answer(self, code: int, body: bytes, declared: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(declared or len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch, without_waits: None) -> Iterator[str]:
    trust(certificate, monkeypatch)
    Handler.hits = []
    with https_server(Handler, certificate) as address:
        yield address


def no_lake(uri: str) -> Any:
    raise AssertionError(uri)


def opened(uri: str, **options: Any) -> bytes:
    with open_source(Source("x", uri, "key"), no_lake, **options) as file:
        return file.read()


def reason(uri: str, **options: Any) -> str:
    with pytest.raises(AudioError) as caught:
        opened(uri, **options)
    assert "sig=" not in caught.value.message
    return caught.value.reason


def test_a_file_is_described_without_its_body_and_read(server: str) -> None:
    source = describe(f"{server}/a.flac?sig=secret", allowed=[server])
    assert source.name == f"{server}/a.flac"
    assert source.size_bytes == len(FLAC)
    assert describe(f"{server}/a.flac?sig=secret").key == source.key
    with open_source(source, no_lake, allowed=[server]) as file:
        assert file.read() == FLAC
        file.seek(0)
        assert examine(file, min_s=0.1, max_s=10, silence_peak=0.001).duration_s == 3.0


def test_what_is_not_there(server: str) -> None:
    with pytest.raises(NotFound, match="404"):
        describe(f"{server}/missing?sig=secret")
    with pytest.raises(SourceRefused, match="403"):
        describe(f"{server}/secret")
    assert reason(f"{server}/missing?sig=secret") == QuarantineReason.UNREADABLE
    assert reason(f"{server}/secret?sig=secret") == QuarantineReason.REFUSED


def test_redirects_inside_the_list_are_followed(server: str) -> None:
    assert opened(f"{server}/to/~a.flac", allowed=[server]) == FLAC
    assert opened(f"{server}/to/~a.flac") == FLAC


@pytest.mark.parametrize(
    "target",
    ["https:~~169.254.169.254~latest", "https:~~10.0.0.1~a.flac", "http:~~127.0.0.1~a.flac", "file:~~~etc~passwd"],
)
@pytest.mark.parametrize("trusted", [True, False])
def test_redirects_never_lead_elsewhere(server: str, target: str, trusted: bool) -> None:
    assert (
        reason(f"{server}/to/{target}", allowed=None if trusted else [server, "https://"]) == QuarantineReason.REFUSED
    )


def test_redirects_out_of_the_list_are_refused_before_they_are_asked(server: str) -> None:
    other = server.replace("127.0.0.1", "localhost")
    target = other.replace("/", "~")
    assert reason(f"{server}/to/{target}~a.flac", allowed=[server]) == QuarantineReason.REFUSED
    assert "/a.flac" not in Handler.hits
    assert opened(f"{server}/to/{target}~a.flac", allowed=[server, other]) == FLAC
    assert reason(f"{server}/loop", allowed=[server]) == QuarantineReason.REFUSED


def test_passing_trouble_is_tried_again(server: str) -> None:
    assert opened(f"{server}/flaky.flac") == FLAC
    assert Handler.hits.count("/flaky.flac") == 3


def test_an_answer_that_breaks_off_is_not_taken_for_the_file(server: str) -> None:
    assert reason(f"{server}/cut.flac") == QuarantineReason.UNREADABLE
    assert Handler.hits.count("/cut.flac") == 3


def test_a_body_without_end_stops_at_the_limit(server: str) -> None:
    assert reason(f"{server}/endless", limit_bytes=5_000_000) == QuarantineReason.UNREADABLE
    assert opened(f"{server}/a.flac", limit_bytes=len(FLAC)) == FLAC
    assert reason(f"{server}/a.flac", limit_bytes=len(FLAC) - 1) == QuarantineReason.UNREADABLE


def test_no_server_and_no_valid_certificate(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        describe("https://127.0.0.1:9/a.flac")
    monkeypatch.delenv("SSL_CERT_FILE")
    assert reason(f"{server}/a.flac") == QuarantineReason.UNREADABLE
    assert Handler.hits == []


def test_a_body_that_the_server_compresses_is_refused(server: str) -> None:
    """Whatever it unpacks to: it was asked for as it is."""
    assert reason(f"{server}/bomb.flac") == QuarantineReason.REFUSED
    with pytest.raises(SourceRefused, match="compresses"):
        describe(f"{server}/bomb.flac")


@pytest.mark.parametrize("answers", [["8.8.8.8", "127.0.0.1"], ["127.0.0.1"], ["8.8.8.8,127.0.0.1"]])
def test_a_name_is_resolved_once_and_what_was_checked_is_connected(
    server: str, monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    """DNS rebinding: a name server that answers with a public address first, and with a private one then."""
    asked: list[str] = []
    connected: list[object] = []
    resolve = socket.getaddrinfo

    def rebinding(host: str, *arguments: Any, **options: Any) -> Any:
        if host != "rebind.example":
            return resolve(host, *arguments, **options)
        answer = answers[min(len(asked), len(answers) - 1)]
        asked.append(answer)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answer.split(",")]

    def connect(address: Any, *_: Any, **__: Any) -> Any:
        connected.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    got = reason("https://rebind.example/a.flac", allowed=["https://"])
    assert all(address[0] == "8.8.8.8" for address in connected)
    if answers[0] == "8.8.8.8":  # checked, tried once for each attempt that found it public
        assert len(connected) == 1
    assert got == QuarantineReason.REFUSED
    assert Handler.hits == []


def test_a_certificate_is_checked_for_the_name_though_an_address_is_connected(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def local(host: str, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host == "other.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    port = server.rpartition(":")[2]
    assert opened(f"https://localhost:{port}/a.flac") == FLAC
    assert reason(f"https://other.example:{port}/a.flac") == QuarantineReason.UNREADABLE
    assert Handler.hits == ["/a.flac"]


def test_a_port_that_was_named_opens_no_other_port_of_that_host(server: str) -> None:
    port = int(server.rpartition(":")[2])
    target = f"https:~~127.0.0.1:{port + 1}~a.flac"
    assert reason(f"{server}/to/{target}", allowed=[server, "https://"]) == QuarantineReason.REFUSED
    assert reason(f"{server}/to/{target}") == QuarantineReason.REFUSED
