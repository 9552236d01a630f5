"""A source that changes between the passes: its labels are stored under the samples that were read, or not at all."""

import asyncio
import http.server
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tls import https_server, trust, write_certificate
from weights import BASE, base, cache

from k2d import sources
from k2d.audio import decode_flac
from k2d.documents import BatchOptions
from k2d.filehash import FileHashes
from k2d.inference.golden import clips
from k2d.keys import digest
from k2d.labeling.open_models import open_models
from k2d.labeling.recording import Labeler
from k2d.labeling.request import make_batch
from k2d.schema import Outcome, QuarantineReason, RecordingResult, Source
from k2d.settings import Settings
from k2d.store import Lake

pytest.importorskip("cryptography")

GOLDEN = Path(sources.__file__).parent.parent / "inference" / "golden"
A, B = (GOLDEN / name for name in ("mixed.flac", "english.flac"))


class Alternating(http.server.BaseHTTPRequestHandler):
    """Answers `bodies` in turn, under one ETag and one length."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]
    answered: int

    def do_GET(self) -> None:
        body = self.bodies[min(type(self).answered, len(self.bodies) - 1)]
        type(self).answered += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"v1"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    trust(certificate, monkeypatch)
    Alternating.answered = 0
    with https_server(Alternating, certificate) as address:
        yield f"{address}/talk.flac"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    base()
    return Lake(str(tmp_path / "lake"))


def labeled(lake: Lake, source: Source, *, between: Any = None) -> RecordingResult:
    """Label a source; `between` is called after its first examination."""
    settings = Settings(_env_file=None, teacher=BASE, cache=cache(), beam_size=1, rescore=False)
    batch = make_batch([source], BatchOptions(), settings, trusted=True)

    async def run() -> RecordingResult:
        async with open_models(settings, batch, lake) as (teacher, validators):
            labeler = Labeler(lake, teacher=teacher, validators=validators, batch=batch, settings=settings)
            if between is not None:
                examine = labeler._examine_now

                def then(source: Source) -> Any:
                    examination = examine(source)
                    between()
                    return examination

                labeler._examine_now = then  # type: ignore[method-assign]
            return await labeler.run(0)

    return asyncio.run(run())


def check_honest(lake: Lake, result: RecordingResult, name: str) -> None:
    """The labels of the result are of the golden clip with this name."""
    assert result.outcome is Outcome.LABELED
    assert result.label_key is not None
    [(_, flac)] = lake.labels.read(result.label_key, audio=True)
    clip = next(clip for clip in clips() if clip.name == name)
    assert flac is not None
    got = decode_flac(flac)
    assert any((clip.samples[at : at + len(got)] == got).all() for at in range(len(clip.samples) - len(got) + 1))


def test_a_server_that_answers_twice_differently_gets_the_labels_of_what_was_read(lake: Lake, server: str) -> None:
    Alternating.bodies = [A.read_bytes(), B.read_bytes()]  # examined as A, then B for ever
    result = labeled(lake, Source("talk", server, "key"))
    check_honest(lake, result, "english.flac")
    honest = labeled(lake, sources.from_path(A))
    check_honest(lake, honest, "mixed.flac")
    assert honest.recording_id != result.recording_id


def test_a_server_that_answers_differently_every_time_is_quarantined(lake: Lake, server: str) -> None:
    Alternating.bodies = [A.read_bytes(), B.read_bytes()] * 10
    result = labeled(lake, Source("talk", server, "key"))
    assert (result.outcome, result.reason) == (Outcome.QUARANTINED, QuarantineReason.CHANGED)
    assert "changed while it was read" in str(result.detail)
    assert not lake.files.listing("labels")
    check_honest(lake, labeled(lake, sources.from_path(A)), "mixed.flac")


@pytest.mark.parametrize("replaced", ["renamed over", "in place"])
def test_a_file_replaced_between_the_passes_is_labeled_as_what_it_is(lake: Lake, tmp_path: Path, replaced: str) -> None:
    path = tmp_path / "talk.flac"
    path.write_bytes(A.read_bytes())
    source = sources.from_path(path)
    status = path.stat()

    def replace_file() -> None:
        target = tmp_path / "new.flac" if replaced == "renamed over" else path
        target.write_bytes(B.read_bytes())
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(target, path)

    check_honest(lake, labeled(lake, source, between=replace_file), "english.flac")
    honest = tmp_path / "honest.flac"
    honest.write_bytes(A.read_bytes())
    check_honest(lake, labeled(lake, replace(sources.from_path(honest), name="honest")), "mixed.flac")


def test_a_file_that_is_replaced_before_the_worker_comes_is_labeled_as_what_it_is(lake: Lake, tmp_path: Path) -> None:
    """The next file with the first one's content gets its own labels, though its key was asked for before."""
    for hashes in (None, FileHashes(tmp_path / "cache")):
        path = tmp_path / "talk.flac"
        path.write_bytes(A.read_bytes())
        source = sources.from_path(path, hashes=hashes)
        path.write_bytes(B.read_bytes())
        check_honest(lake, labeled(lake, source), "english.flac")
        path.write_bytes(A.read_bytes())
        check_honest(lake, labeled(lake, source), "mixed.flac")


def test_a_file_that_is_gone_is_labeled_from_what_is_known_of_it(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "talk.flac"
    path.write_bytes(A.read_bytes())
    source = sources.from_path(path, hashes=FileHashes(None))
    first = labeled(lake, source)
    path.unlink()
    assert replace(labeled(lake, source), wall_s=0.0, worked_s=None) == replace(first, wall_s=0.0, worked_s=None)


def test_a_batch_of_version_0_2_finds_its_examinations(tmp_path: Path) -> None:
    path = tmp_path / "talk.flac"
    path.write_bytes(A.read_bytes())
    status = path.stat()
    uri = path.as_uri()
    source = Source("talk", uri, digest("source", uri, status.st_size, status.st_mtime_ns), status.st_size)
    with path.open("rb") as file:
        assert sources.current_key(source, file, FileHashes(None)) == source.key
    os.utime(path)
    with path.open("rb") as file:
        assert sources.current_key(source, file, FileHashes(None)) == sources.from_path(path).key
