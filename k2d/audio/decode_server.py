"""The process from which children are forked that decode files, one at a time, so that a crash costs one file.

`k2d.audio.isolated` starts it as `python -m k2d.audio.decode_server DESCRIPTOR`. It imports what decoding needs and
never touches a file itself; children share its memory. For each byte on its socket, which brings a channel for messages
and a lifeline, it forks a child. When the child has ended, its wait status goes back over the lifeline; when the other
end of the lifeline is closed, the child is killed. The server ends when its socket is closed.
"""

import io
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, cast

from k2d.audio import messages
from k2d.audio.decode import blocks
from k2d.audio.examine import examine, probe_channels, probe_duration_s
from k2d.audio.messages import MessageKind
from k2d.errors import AudioError
from k2d.schema import SAMPLE_RATE_HZ

STATUS: Final = struct.Struct("<i")  # a wait status, as os.waitpid returns it
_REPORT_S: Final = 1.0  # between messages about progress; well below any time-out
# CPU seconds that a second of audio may take, beside K2D_DECODE_TIMEOUT_S. Decoding takes 0.001 to 0.02 of it.
_CPU_PER_S: Final = 1.0
_READ_MAX: Final = 1 << 20  # bytes of the parent's file in one message
_JOBS_MAX: Final = 100  # of one child, so that what a decoder leaves behind does not add up
_GROWTH_MAX: Final = 64 << 20  # bytes that a child may keep from one job to the next


class DecodeServer:
    """Forks children, and reports how they ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lifelines: dict[int, socket.socket] = {}  # by child
        self._woken, self._wakes = socket.socketpair()  # a byte for each signal
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        """Serve until the other end of the socket is closed."""
        try:
            while True:
                by_lifeline = {lifeline: pid for pid, lifeline in self._lifelines.items()}
                readable, _, _ = select.select([self._control, self._woken, *by_lifeline], [], [])
                for end in readable:
                    if pid := by_lifeline.get(end):
                        self._kill(pid)
                if self._woken in readable:
                    with suppress(BlockingIOError):
                        self._woken.recv(4096)
                    self._reap()
                if self._control in readable and not self._accept():
                    return
        finally:
            signal.set_wakeup_fd(-1)  # the end of these children wakes nobody
            for pid in self._lifelines:
                os.kill(pid, signal.SIGKILL)

    def _accept(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
        if not data:
            return False
        channel, lifeline = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        try:
            pid = os.fork()
        except OSError:  # no process or memory left: both ends are closed without a status
            channel.close()
            lifeline.close()
            return True
        if not pid:
            self._become_child(channel, lifeline)
        channel.close()
        self._lifelines[pid] = lifeline
        return True

    def _become_child(self, channel: socket.socket, lifeline: socket.socket) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._control, self._woken, self._wakes, lifeline, *self._lifelines.values()):
                end.close()
            Decoder(channel).run()
            status = 0
        finally:
            os._exit(status)

    def _kill(self, pid: int) -> None:
        """Kill a child; it was not waited for yet, so that the number is still its own."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._reap(pid)

    def _reap(self, child: int | None = None) -> None:
        """Wait for a child that was killed, or for those that have ended."""
        for pid in [child] if child else [*self._lifelines]:
            ended, status = os.waitpid(pid, 0 if child else os.WNOHANG)
            if ended:
                lifeline = self._lifelines.pop(pid)
                with suppress(OSError):
                    lifeline.send(STATUS.pack(status))
                lifeline.close()


class Decoder:
    """Decodes files one after the other, in a child, each within its limits."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._decoded_s = 0.0  # of the present file; a file that is decoded twice counts twice
        self._cpu_s = 0  # the present limit
        self._cpu_start_s = 0.0  # CPU time before the present file
        self._timeout_s = 0.0
        self._reported_at = time.monotonic()
        self._start_bytes = _address_bytes()

    def run(self) -> None:
        """Do the jobs that come, until one fails: what it may have damaged does not reach another file."""
        _set_limit(resource.RLIMIT_CORE, 0)
        with suppress(OSError):  # Linux: the kernel takes this process first when the machine's memory is used up
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        with suppress(messages.NoMessage, ConnectionError):  # nobody waits any more
            for left in reversed(range(_JOBS_MAX)):
                job, descriptor = messages.receive_job(self._channel)
                try:
                    if not self._run(job, descriptor, is_last=not left):
                        return
                finally:
                    if descriptor is not None:
                        os.close(descriptor)

    def _run(self, job: dict[str, Any], descriptor: int | None, *, is_last: bool) -> bool:
        """Do a job and send its result; returns whether another one may follow."""
        try:
            self._limit(job["memory_mb"], job["timeout_s"])
            raw = (
                _FileHere(descriptor, self) if descriptor is not None else _FileThere(self._channel, job["size"], self)
            )
            result = self._decode(cast(BinaryIO, io.BufferedReader(raw)), job["operation"], job["options"])
        except AudioError as error:
            if _is_memory(error):
                messages.send(self._channel, MessageKind.OUT_OF_MEMORY)
                return False
            content = {"message": error.message, "reason": str(error.reason), "hint": error.hint}
            messages.send_json(self._channel, MessageKind.AUDIO_ERROR, content | {"details": error.details})
        except MemoryError:
            messages.send(self._channel, MessageKind.OUT_OF_MEMORY)
        except (messages.NoMessage, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - boundary: the parent decides what becomes of the recording
            messages.send(self._channel, MessageKind.EXCEPTION, f"{type(error).__name__}: {error}"[:1000].encode())
        else:
            has_grown = _address_bytes() > self._start_bytes + _GROWTH_MAX
            messages.send_json(self._channel, MessageKind.RESULT, [result, not (is_last or has_grown)])
            return not has_grown
        return False

    def progress(self, decoded_s: float = 0.0) -> None:
        """Allow CPU time for so many more seconds of audio, and tell the parent that the job goes on."""
        self._decoded_s += decoded_s
        if self._cpu_limit_s > self._cpu_s:
            self._limit_cpu()
        if (now := time.monotonic()) - self._reported_at >= _REPORT_S:
            self._reported_at = now
            messages.send(self._channel, MessageKind.PROGRESS)

    def _decode(self, file: BinaryIO, operation: str, options: dict[str, Any]) -> Any:
        if operation == "blocks":
            for block in blocks(file, channels=tuple(options["channels"]), stop=options["stop"]):
                self.progress(len(block) / SAMPLE_RATE_HZ)
                messages.send(self._channel, MessageKind.BLOCK, block.astype("<i2", copy=False).tobytes())
            return None
        if operation == "examine":
            return asdict(examine(file, **options, on_progress=self.progress))
        return probe_channels(file) if operation == "channels" else probe_duration_s(file)

    def _limit(self, memory_mb: int, timeout_s: float) -> None:
        """Limit memory, beyond what the process has from its start, and CPU time."""
        self._timeout_s, self._decoded_s, self._cpu_start_s = timeout_s, 0.0, time.process_time()
        self._limit_cpu()
        if self._start_bytes:  # elsewhere than on Linux the system does not hold this limit
            _set_limit(resource.RLIMIT_AS, self._start_bytes + (memory_mb << 20))

    @property
    def _cpu_limit_s(self) -> float:
        return self._cpu_start_s + self._timeout_s + self._decoded_s * _CPU_PER_S

    def _limit_cpu(self) -> None:
        self._cpu_s = math.ceil(self._cpu_limit_s) + 1
        _set_limit(resource.RLIMIT_CPU, self._cpu_s)


class _FileHere(io.RawIOBase):
    """A file by its descriptor, which other processes may share: it has a position of its own."""

    def __init__(self, descriptor: int, decoder: Decoder) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._at = 0
        self._decoder = decoder

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(22, "a file has no negative positions")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._decoder.progress()
        count = os.preadv(self._descriptor, [buffer], self._at)
        self._at += count
        return count


class _FileThere(_FileHere):
    """A file that the parent has open, in any storage: it is asked for the bytes. Where they are read one after the
    other, for more and more of them at once."""

    def __init__(self, channel: socket.socket, size: int, decoder: Decoder) -> None:
        self._channel = channel
        self._size = size
        self._at = 0
        self._decoder = decoder
        self._start = 0  # offset of `_ahead`
        self._ahead = memoryview(b"")
        self._step = 0  # bytes that were asked for last

    def readinto(self, buffer: Any) -> int:
        offset = self._at - self._start
        if not 0 <= offset < len(self._ahead):
            follows = offset == len(self._ahead)
            self._step = min(max(len(buffer), 2 * self._step if follows else 0), _READ_MAX)
            self._start, self._ahead = self._at, memoryview(self._bytes(self._at, self._step))
            offset = 0
        piece = self._ahead[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _bytes(self, offset: int, count: int) -> bytes:
        try:
            messages.send_json(self._channel, MessageKind.READ, [offset, count])
            kind, data = messages.receive(self._channel)
        except MemoryError:  # what was sent and is not read yet would be taken for a message
            messages.send(self._channel, MessageKind.OUT_OF_MEMORY)
            os._exit(0)
        except (messages.NoMessage, ConnectionError):
            os._exit(0)  # nobody waits any more; PyAV drops exceptions of some of its reads
        if kind is MessageKind.READ_FAILED:
            raise OSError(*messages.parsed(data))
        return data


def _address_bytes() -> int:
    """Size of this process's address space; 0 elsewhere than on Linux."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _set_limit(kind: int, value: int) -> None:
    """Set the soft limit, within the hard one that the process was started with."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _is_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, is the limit of memory."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; who started it decides when it ends
    DecodeServer(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    main()
