"""`k2d.audio.examine`, `SampleReader` and the probes in a child process, so that a crash costs one recording.

    limits = DecodeLimits.of(settings)
    recording = isolated.examine(file, min_s=0.1, max_s=86_400.0, silence_peak=0.001, limits=limits)
    with isolated.IsolatedReader(file, recording=recording, limits=limits) as reader:
        window = reader.read(0, 480_000)

FFmpeg's decoders are C code that reads files from strangers. A child decodes one file at a time, forked from a process
that imports only what decoding needs (`k2d.audio.decode_server`), with limits of memory and time and without this
process's environment. When it dies, an AudioError says what happened: reason `crashes_worker`; when it was killed, at
the second time. A child that decoded its file without an error is used again.
"""

import atexit
import io
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO, Final, Self, cast

import numpy as np

from k2d.audio import messages, reader
from k2d.audio.decode_server import STATUS
from k2d.audio.media import AudioFile
from k2d.audio.messages import MessageKind
from k2d.errors import AudioError, K2DError
from k2d.schema import QuarantineReason, Recording, Samples
from k2d.settings import Settings

SERVER_MODULE: Final = "k2d.audio.decode_server"
_PROBE_MEMORY_MB: Final = 128  # of a child that reads a header for an estimate: eight of them take 1 GB at most
_IDLE_MAX: Final = 8  # children that wait for another file
_STATUS_S: Final = 10.0  # how long the server may take to say how a child ended
_STOP_S: Final = 5.0  # how long the server may take to end
# What the children get of the environment: nothing that is secret, and one thread
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class DecoderUnavailable(K2DError):
    """The processes that decode audio cannot be started, or were ended from outside; no recording is at fault."""

    code = "decoder_unavailable"
    status = 503
    hint = "check free memory and the limit of processes, then resume the batch"


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Limits of the process that decodes one file."""

    memory_mb: int = 1024  # beyond what it has from its start, about 300 MB of addresses and 50 MB of memory
    timeout_s: float = 60.0  # without progress; and CPU time, beside a second for each second of audio

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.decode_memory_mb, settings.decode_timeout_s)


DEFAULT: Final = DecodeLimits()


def examine(
    file: AudioFile,
    *,
    min_s: float,
    max_s: float,
    silence_peak: float,
    channel: int | None = None,
    keep_partial: bool = False,
    name: str | None = None,
    limits: DecodeLimits = DEFAULT,
) -> Recording:
    """What `k2d.audio.examine` returns and raises.

    Args:
        name: of the recording, for errors.

    Raises:
        AudioError: besides, with `reason` crashes_worker: the decoder crashed, or reached a limit.
        DecoderUnavailable
    """
    options = {
        "min_s": min_s,
        "max_s": max_s,
        "silence_peak": silence_peak,
        "channel": channel,
        "keep_partial": keep_partial,
    }
    content = _result(file, "examine", options, name=name, limits=limits)
    content["channels"], content["notes"] = tuple(content["channels"]), tuple(content["notes"])
    return Recording(**content)


def blocks(
    file: AudioFile,
    *,
    channels: tuple[int, ...] = (),
    stop: int | None = None,
    name: str | None = None,
    limits: DecodeLimits = DEFAULT,
) -> Generator[Samples, None, None]:
    """What `k2d.audio.blocks` yields and raises; errors besides as of `examine`. The child decodes ahead, as far as the
    socket's buffer holds it: some seconds."""
    options = {"channels": channels, "stop": stop}
    with closing(_outcomes(file, "blocks", options, name=name, limits=limits)) as outcomes:
        for kind, payload in outcomes:
            if kind is MessageKind.BLOCK:
                yield np.frombuffer(payload, "<i2").astype(np.int16)


class IsolatedReader(reader.SampleReader):
    """A `k2d.audio.SampleReader` whose samples are decoded in a child process. Errors besides as of `examine`."""

    def __init__(
        self,
        file: AudioFile,
        *,
        recording: Recording | None = None,
        name: str | None = None,
        limits: DecodeLimits = DEFAULT,
    ) -> None:
        def decode(file: AudioFile, **options: Any) -> Generator[Samples, None, None]:
            return blocks(file, **options, name=name, limits=limits)

        super().__init__(file, recording=recording, decode=decode)


def probe_duration_s(file: AudioFile, *, limits: DecodeLimits = DEFAULT) -> float | None:
    """What `k2d.audio.probe_duration_s` returns; None also where the decoder crashed or reached a limit.

    Memory is limited to 128 MB, as many files are probed at once, for estimates.
    """
    small = DecodeLimits(min(limits.memory_mb, _PROBE_MEMORY_MB), limits.timeout_s)
    return cast(float | None, _probe(file, "duration_s", small))


def probe_channels(file: AudioFile, *, limits: DecodeLimits = DEFAULT) -> int | None:
    """What `k2d.audio.probe_channels` returns; None also where the decoder crashed or reached a limit."""
    return cast(int | None, _probe(file, "channels", limits))


def stop_server() -> None:
    """End the process from which children are forked, and all of them; the next call starts another."""
    _pool.stop()


def _probe(file: AudioFile, operation: str, limits: DecodeLimits) -> Any:
    try:
        return _result(file, operation, {}, name=None, limits=limits)
    except AudioError:
        return None


def _result(file: AudioFile, operation: str, options: dict[str, Any], *, name: str | None, limits: DecodeLimits) -> Any:
    with closing(_outcomes(file, operation, options, name=name, limits=limits)) as outcomes:
        result = None
        for _, payload in outcomes:
            result, _ = messages.parsed(payload)
        return result


# ---- one child ----------------------------------------------------------------------------------------------------


def _outcomes(
    file: AudioFile, operation: str, options: dict[str, Any], *, name: str | None, limits: DecodeLimits
) -> Generator[tuple[MessageKind, bytes], None, None]:
    """Run a child; yields its blocks and its result. Closing the generator kills the child.

    A child that was killed (SIGKILL) need not have died of its file: the kernel takes it first when any process uses up
    the machine's memory. So the file is decoded once more, and what was yielded already is left out.
    """
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open(file, "rb")) if isinstance(file, str | os.PathLike) else file
            descriptor = _descriptor(opened)
            size = opened.seek(0, os.SEEK_END) if descriptor is None else 0
        except OSError as error:
            raise _unreadable(error) from error
        job = {"operation": operation, "options": options, "size": size}
        job |= {"memory_mb": limits.memory_mb, "timeout_s": limits.timeout_s}
        yielded = 0
        for is_last in (False, True):
            with _pool.child() as child:
                try:
                    for outcome in itertools.islice(child.outcomes(job, opened, descriptor), yielded, None):
                        yielded += 1
                        yield outcome
                    return
                except (messages.NoMessage, ConnectionError, TimeoutError) as error:
                    what, was_killed = _what_happened(child, error, limits)
                except _OutOfMemory:
                    what, was_killed = f"it needs more than {limits.memory_mb} MB of memory", False
            if is_last or not was_killed:
                break
        subject = "The recording" if name is None else f"The recording {name!r}"
        raise AudioError(
            f"{subject} cannot be decoded: {what}.",
            reason=QuarantineReason.CRASHES_WORKER,
            hint="convert it to another format (wav, flac); limits are K2D_DECODE_MEMORY_MB and K2D_DECODE_TIMEOUT_S",
            duration_s=0.0,
        )


def _what_happened(child: "_DecoderProcess", error: Exception, limits: DecodeLimits) -> tuple[str, bool]:
    """How a child ended that sent no result, and whether somebody killed it.

    Raises:
        DecoderUnavailable: it is unknown, as the server ended too.
    """
    status = child.end()
    if isinstance(error, TimeoutError):
        return f"the decoder made no progress for {limits.timeout_s:g} s", False
    if status is None:
        raise DecoderUnavailable("the process that decodes audio ended") from error
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        return "the decoder was killed twice, as happens where the machine's memory is used up", True
    if code == -signal.SIGXCPU:
        return f"it takes more than {limits.timeout_s:g} s, and a second for each second of audio, of CPU time", False
    if code < 0:
        return f"the decoder crashed ({signal.Signals(-code).name})", False
    return f"the decoder ended without a result (exit status {code})", False


class _OutOfMemory(Exception):
    """The child reached its limit of memory."""


class _DecoderProcess:
    """A child process that decodes one file at a time."""

    def __init__(self, channel: socket.socket, lifeline: socket.socket) -> None:
        self._channel = channel
        self._lifeline = lifeline
        self.is_idle = True  # it waits for a job

    @property
    def is_alive(self) -> bool:
        return not select.select([self._lifeline], [], [], 0)[0]  # its status comes here

    def close(self) -> None:
        """Kill it, if it is alive."""
        self._channel.close()
        self._lifeline.close()

    def outcomes(
        self, job: dict[str, Any], file: BinaryIO, descriptor: int | None
    ) -> Generator[tuple[MessageKind, bytes], None, None]:
        """Send the job, give the child the bytes it asks for, and yield what it decodes.

        Raises:
            AudioError: of the child.
            NoMessage, ConnectionError: the child died.
            TimeoutError: it made no progress.
            _OutOfMemory
        """
        self.is_idle = False
        self._channel.settimeout(job["timeout_s"])
        descriptors = () if descriptor is None else (descriptor,)
        messages.send_json(self._channel, MessageKind.JOB, job, descriptors=descriptors)
        while True:
            kind, payload = messages.receive(self._channel)
            if kind is MessageKind.READ:
                with suppress(ConnectionError):  # it ended; its last message says why
                    self._answer(file, *messages.parsed(payload))
            elif kind is MessageKind.AUDIO_ERROR:
                content = messages.parsed(payload)
                raise AudioError(
                    content["message"],
                    reason=QuarantineReason(content["reason"]),
                    hint=content["hint"],
                    **content["details"],
                )
            elif kind is MessageKind.OUT_OF_MEMORY:
                raise _OutOfMemory
            elif kind is MessageKind.EXCEPTION:
                raise AudioError(
                    f"The decoder failed unexpectedly: {payload.decode(errors='replace')}",
                    reason=QuarantineReason.FAILED,
                    hint="convert it to another format (wav, flac), and report the file",
                    duration_s=0.0,
                )
            elif kind in (MessageKind.BLOCK, MessageKind.RESULT):
                if kind is MessageKind.RESULT:
                    _, self.is_idle = messages.parsed(payload)
                yield kind, payload
                if kind is MessageKind.RESULT:
                    return

    def end(self) -> int | None:
        """Kill the child if it is alive; returns its wait status, None if the server is gone."""
        with suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)
        self._lifeline.settimeout(_STATUS_S)
        try:
            status = self._lifeline.recv(STATUS.size, socket.MSG_WAITALL)
        except OSError:
            return None
        return STATUS.unpack(status)[0] if len(status) == STATUS.size else None

    def _answer(self, file: BinaryIO, offset: int, count: int) -> None:
        try:
            file.seek(offset)
            data = file.read(count)
        except OSError as error:
            messages.send_json(self._channel, MessageKind.READ_FAILED, [error.errno or 0, error.strerror or str(error)])
        else:
            messages.send(self._channel, MessageKind.BYTES, data)


def _descriptor(file: BinaryIO) -> int | None:
    """The descriptor of a plain local file; None for anything else, such as an object of a remote store."""
    if type(file) is io.BufferedRandom:
        file.flush()
    elif type(file) not in (io.BufferedReader, io.FileIO):
        return None
    raw = getattr(file, "raw", file)
    return raw.fileno() if type(raw) is io.FileIO else None


def _unreadable(error: OSError) -> AudioError:
    return AudioError(
        f"The file cannot be read: {error.strerror or error}.",
        reason=QuarantineReason.UNREADABLE,
        hint="check that it exists and that the worker may read it, then resume the batch",
        duration_s=0.0,
    )


# ---- their server -------------------------------------------------------------------------------------------------


class _DecoderPool:
    """The process from which children are forked; started when it is needed, one for this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._idle: list[_DecoderProcess] = []

    @contextmanager
    def child(self) -> Iterator[_DecoderProcess]:
        """A child for one job, which is killed at the end unless it waits for another one.

        Raises:
            DecoderUnavailable
        """
        child = self._idle_child() or self._new_child()
        try:
            yield child
        finally:
            with self._lock:
                is_kept = child.is_idle and self._control is not None and len(self._idle) < _IDLE_MAX
                if is_kept:
                    self._idle.append(child)
            if not is_kept:
                child.close()

    def _idle_child(self) -> _DecoderProcess | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                child = self._idle.pop()
            if child.is_alive:
                return child
            child.close()

    def _new_child(self) -> _DecoderProcess:
        channel, theirs = socket.socketpair()
        lifeline, their_lifeline = socket.socketpair()
        child = _DecoderProcess(channel, lifeline)
        with closing(theirs), closing(their_lifeline):
            try:
                self._send([theirs.fileno(), their_lifeline.fileno()])
            except BaseException:
                child.close()
                raise
        return child

    def stop(self) -> None:
        """End the process; it kills the children."""
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """In a forked process: the server belongs to the parent."""
        self._lock = Lock()
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.returncode = 0  # it is not this process's child: nobody may wait for it
        self._process = self._control = None
        self._close_idle()

    def _close_idle(self) -> None:
        for child in self._idle:
            child.close()
        self._idle = []

    def _send(self, descriptors: list[int]) -> None:
        with self._lock:
            for is_last in (False, True):
                if self._control is None:
                    self._start()
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [b"f"], descriptors)
                    return
                except OSError as error:  # it was ended from outside
                    self._stop()
                    if is_last:
                        raise DecoderUnavailable("the process that decodes audio cannot be reached") from error

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # where this process has its modules from; not the current folder
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", SERVER_MODULE, str(theirs.fileno())],
                env=environment | _ONE_THREAD | {"PYTHONPATH": path},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is for this process, which ends the others in order
            )
        except OSError as error:
            ours.close()
            raise DecoderUnavailable(f"no process can be started that decodes audio: {error.strerror}") from error
        finally:
            theirs.close()
        self._control = ours

    def _stop(self) -> None:
        process, control = self._process, self._control
        self._process = self._control = None
        self._close_idle()
        if control is not None:
            control.close()
        if process is not None:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


_pool: Final = _DecoderPool()
os.register_at_fork(after_in_child=_pool.forget)
atexit.register(stop_server)
