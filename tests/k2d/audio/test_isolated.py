"""Decoding in a child process: the same samples, and a crash costs one recording."""

import errno
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import crashing_decoder
import numpy as np
import psutil
import pytest
from media_files import encoded, write
from places import AUDIO_CASES, EXAMPLES

from k2d import audio
from k2d.audio import isolated
from k2d.audio.isolated import DecodeLimits, DecoderUnavailable, IsolatedReader
from k2d.errors import AudioError, StoreError
from k2d.schema import QuarantineReason
from k2d.settings import Settings

LIMITS = {"min_s": 0.1, "max_s": 3600.0, "silence_peak": 0.001}
FILES = sorted(path for folder in (EXAMPLES, AUDIO_CASES) for path in folder.iterdir() if path.suffix != ".md")


@pytest.fixture(autouse=True)
def _server_of_its_own() -> Iterator[None]:
    isolated.stop_server()
    yield
    isolated.stop_server()


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "SERVER_MODULE", "crashing_decoder")


def outcome(function, *arguments, **options) -> object:
    try:
        return function(*arguments, **options)
    except AudioError as error:
        return error.reason, error.message, error.hint, error.details


def error_of(file, **options) -> AudioError:
    with pytest.raises(AudioError) as caught:
        isolated.examine(file, **LIMITS, **options)
    return caught.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_results_are_those_of_this_process(path: Path) -> None:
    expected = outcome(audio.examine, path, **LIMITS, keep_partial=True)
    with path.open("rb") as file:
        assert outcome(isolated.examine, file, **LIMITS, keep_partial=True) == expected
    assert isolated.probe_duration_s(path) == audio.probe_duration_s(path)
    assert isolated.probe_channels(path) == audio.probe_channels(path)
    if isinstance(expected, tuple):
        return
    with audio.SampleReader(path, recording=expected) as here, IsolatedReader(path, recording=expected) as there:
        assert np.array_equal(here.read(0, 10**7), there.read(0, 10**7))


@pytest.mark.parametrize("options", [{"channel": 1}, {"channel": 2}, {"channel": 3}, {"keep_partial": False}, {}])
def test_options_and_errors_are_those_of_this_process(options: dict) -> None:
    for path in (AUDIO_CASES / "A5_phase.wav", AUDIO_CASES / "hole4k_segv.m4a", EXAMPLES / "cut-off.flac"):
        assert outcome(isolated.examine, path, **LIMITS, **options) == outcome(audio.examine, path, **LIMITS, **options)


def test_a_file_object_of_any_storage_is_read_where_it_is(tmp_path: Path) -> None:
    write(tmp_path / "a.m4a", "aac", seconds=30.0)
    expected = audio.examine(tmp_path / "a.m4a", **LIMITS)

    class Remote(io.BytesIO):
        requested = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.requested += len(data)
            return data

    file = Remote((tmp_path / "a.m4a").read_bytes())
    assert isolated.examine(file, **LIMITS) == expected
    large = Remote(encoded("pcm_s16le", "wav", seconds=60.0))
    assert isolated.probe_duration_s(large) == 60.0
    assert large.requested < 480_000  # of 1.9 MB: the header is enough, and what is read ahead
    with open(tmp_path / "a.m4a", "r+b") as plain:
        plain.seek(100)
        assert isolated.examine(plain, **LIMITS) == expected
        assert plain.tell() == 100


def test_errors_of_the_storage_are_those_of_the_storage() -> None:
    class Failing(io.BytesIO):
        error: Exception = OSError(errno.EIO, "the disk is gone")

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 10_000:
                raise self.error
            return super().read(size)

    file = Failing(encoded("pcm_s16le", "wav", seconds=10.0))
    error = error_of(file)
    assert (error.reason, error.message) == (QuarantineReason.UNREADABLE, "The file cannot be read: the disk is gone.")
    file.error = StoreError("the lake is gone")
    with pytest.raises(StoreError, match="the lake is gone"):
        isolated.examine(file, **LIMITS)
    assert error_of("/nowhere/a.wav").reason == QuarantineReason.UNREADABLE


@pytest.mark.usefixtures("crashing")
@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("segv", "the decoder crashed (SIGSEGV)"),
        ("kill", "the decoder was killed twice"),
        ("exit", "the decoder ended without a result (exit status 3)"),
        ("eat", "it needs more than 1024 MB of memory"),
        ("hang", "the decoder made no progress for 1 s"),
        ("loop", "s"),  # of CPU or of time, whichever is measured first
    ],
)
@pytest.mark.parametrize("stage", ["examine", "blocks"])
def test_a_crash_is_an_error_of_the_recording_and_of_no_other(action: str, what: str, stage: str) -> None:
    data = encoded("pcm_s16le", "wav", seconds=3.0)
    bad = crashing_decoder.marked(data, stage, action)
    with IsolatedReader(io.BytesIO(data)) as neighbour:
        first = neighbour.read(0, 16_000)
        with pytest.raises(AudioError) as caught:
            read_all(bad)
        assert caught.value.reason == QuarantineReason.CRASHES_WORKER
        assert "'b.wav'" in caught.value.message
        assert what in caught.value.message
        assert isolated.examine(io.BytesIO(data), **LIMITS) == audio.examine(io.BytesIO(data), **LIMITS)
        assert len(first) + len(neighbour.read(16_000, 48_000)) == 48_000


def read_all(data: bytes) -> None:
    limits = DecodeLimits(timeout_s=1.0)
    recording = isolated.examine(io.BytesIO(data), **LIMITS, name="b.wav", limits=limits)
    with IsolatedReader(io.BytesIO(data), recording=recording, name="b.wav", limits=limits) as reader:
        reader.read(0, recording.samples)


@pytest.mark.usefixtures("crashing")
def test_what_nobody_foresaw_is_an_error_of_the_recording() -> None:
    error = error_of(io.BytesIO(crashing_decoder.marked(encoded("pcm_s16le", "wav"), "examine", "odd")))
    assert (error.reason, "KeyError: 'odd'" in error.message) == (QuarantineReason.FAILED, True)


@pytest.mark.usefixtures("crashing")
def test_cpu_time_is_limited_while_nobody_waits() -> None:
    """The wall's clock stands still while the caller is busy elsewhere; the child's CPU time does not."""
    data = encoded("pcm_s16le", "wav", seconds=60.0)
    with isolated._pool.child() as child:
        bad = crashing_decoder.marked(data, "blocks", "loop")
        job = {"operation": "blocks", "options": {"channels": [], "stop": None}, "size": len(bad), "memory_mb": 512}
        child._channel = PatientSocket(child._channel)
        with pytest.raises(isolated.messages.NoMessage):
            next(child.outcomes(job | {"timeout_s": 1.0}, io.BytesIO(bad), None))
        assert os.waitstatus_to_exitcode(child.end()) == -signal.SIGXCPU


class PatientSocket:
    """A socket whose time-out is a minute, whatever it is set to."""

    def __init__(self, channel) -> None:
        self._channel = channel
        channel.settimeout(60.0)

    def settimeout(self, _: float) -> None:
        pass

    def __getattr__(self, name: str) -> object:
        return getattr(self._channel, name)


def test_memory_is_limited_with_real_files() -> None:
    """Pictures of 240 MB and more, all of which FFmpeg holds in memory."""
    sound = encoded("flac", "flac", seconds=5.0)
    data = sound[:4] + sound[4:42] + flac_picture((1 << 24) - 100) * 20 + sound[42:]
    error = error_of(io.BytesIO(data), limits=DecodeLimits(memory_mb=128), name="cover.flac")
    assert error.reason == QuarantineReason.CRASHES_WORKER
    assert error.message == "The recording 'cover.flac' cannot be decoded: it needs more than 128 MB of memory."
    assert isolated.probe_duration_s(io.BytesIO(data)) is None  # only an estimate is lost
    assert isolated.examine(io.BytesIO(data), **LIMITS).duration_s == 5.0
    # FFmpeg leaves out an MP3's picture for which there is no room
    data = id3_picture(240 << 20) + encoded("libmp3lame", "mp3", seconds=5.0)
    within = isolated.examine(io.BytesIO(data), **LIMITS, limits=DecodeLimits(memory_mb=128))
    assert within == isolated.examine(io.BytesIO(data), **LIMITS)


def flac_picture(count: int) -> bytes:
    """A metadata block of a FLAC file with a picture of so many bytes."""
    content = b"".join(
        number.to_bytes(4, "big") + text
        for number, text in ((3, b""), (10, b"image/jpeg"), (0, b""), (1, b""), (1, b""), (24, b""), (0, b""))
    )
    content += count.to_bytes(4, "big") + b"\xff\xd8\xff" + bytes(count - 3)
    return b"\x06" + len(content).to_bytes(3, "big") + content


def id3_picture(count: int) -> bytes:
    """An ID3v2.4 tag with a picture of so many bytes."""

    def synchsafe(number: int) -> bytes:
        return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))

    content = b"\0image/jpeg\0\x03\0\xff\xd8\xff" + bytes(count)
    frame = b"APIC" + synchsafe(len(content)) + b"\0\0" + content
    return b"ID3\x04\0\0" + synchsafe(len(frame)) + frame


def test_children_see_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("K2D_API_TOKEN", "secret")
    isolated.probe_duration_s(FILES[0])
    (server,) = servers()
    assert "secret" not in str(server.environ())
    assert server.children()


def servers() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children()
        if process.status() != psutil.STATUS_ZOMBIE and "k2d.audio.decode_server" in process.cmdline()
    ]


def test_children_are_used_again_until_a_file_fails() -> None:
    def child() -> int:
        (pid,) = {process.pid for process in servers()[0].children()}
        return pid

    for _ in range(3):
        isolated.examine(FILES[-1], **LIMITS) if FILES[-1].suffix == ".wav" else isolated.probe_channels(FILES[-1])
    first = child()
    error_of(io.BytesIO(b"no audio"))
    isolated.probe_channels(FILES[-1])
    assert child() != first


def test_a_reader_that_is_closed_leaves_no_child() -> None:
    with IsolatedReader(io.BytesIO(encoded("pcm_s16le", "wav", seconds=600.0))) as reader:
        reader.read(0, 16_000)
        assert len(servers()[0].children()) == 1
    (server,) = servers()
    for _ in range(100):
        if not server.children():
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


def test_many_threads_have_children_of_their_own() -> None:
    expected = [outcome(audio.examine, path, **LIMITS) for path in FILES]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda path: outcome(isolated.examine, path, **LIMITS), FILES)) == expected
    assert len(servers()[0].children()) <= 8


def test_a_server_that_was_killed_is_started_again_and_blames_no_recording() -> None:
    data = encoded("pcm_s16le", "wav", seconds=600.0)
    with IsolatedReader(io.BytesIO(data)) as reader:
        reader.read(0, 16_000)
        (server,) = servers()
        (child,) = server.children()
        server.kill()
        server.wait()
        assert len(reader.read(16_000, 3 * 16_000)) == 2 * 16_000  # a child does without it
        assert isolated.probe_duration_s(FILES[0]) == audio.probe_duration_s(FILES[0])
        child.kill()
        with pytest.raises(DecoderUnavailable):  # nobody knows of what it died
            reader.read(3 * 16_000, 600 * 16_000)


@pytest.mark.parametrize("after", [0, 1, 30])
def test_a_child_that_was_killed_once_blames_no_recording(after: int) -> None:
    """As the kernel does where another process uses up the machine's memory."""
    data = encoded("flac", "flac", seconds=600.0)
    expected = list(audio.blocks(io.BytesIO(data)))
    decoded = []
    with closing(isolated.blocks(io.BytesIO(data))) as blocks:
        for block in blocks:
            if len(decoded) == after:
                (child,) = servers()[0].children()
                child.kill()
            decoded.append(block)
    assert len(decoded) == len(expected) > 100
    assert np.array_equal(np.concatenate(decoded), np.concatenate(expected))


def test_a_forked_process_has_a_server_of_its_own() -> None:
    """As a worker's horse: the parent's goes on."""
    expected = isolated.probe_duration_s(FILES[0])
    (server,) = servers()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = 0 if isolated.probe_duration_s(FILES[0]) == expected and servers()[0].pid != server.pid else 2
            isolated.stop_server()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert isolated.probe_duration_s(FILES[0]) == expected
    assert servers()[0].pid == server.pid


def test_limits_are_settings() -> None:
    settings = Settings(decode_memory_mb=200, decode_timeout_s=5, _env_file=None)
    assert DecodeLimits.of(settings) == DecodeLimits(memory_mb=200, timeout_s=5.0)
    assert DecodeLimits.of(Settings(_env_file=None)) == DecodeLimits()


def test_an_interrupted_storage_ends_the_child() -> None:
    """As an upload whose client left: a thread that decodes it gets an error."""

    class Slow(io.BytesIO):
        gone = threading.Event()

        def read(self, size: int | None = -1) -> bytes:
            if self.gone.is_set():
                raise OSError(errno.ECANCELED, "closed")
            return super().read(size)

    file = Slow(encoded("pcm_s16le", "wav", seconds=600.0))
    with IsolatedReader(file) as reader:
        reader.read(0, 16_000)
        file.gone.set()
        with pytest.raises(AudioError) as caught:
            reader.read(16_000, 600 * 16_000)
    assert caught.value.reason == QuarantineReason.UNREADABLE
