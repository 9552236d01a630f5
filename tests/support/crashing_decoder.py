"""The server of `k2d.audio.isolated` with decoders that crash: started in its place, by name.

What to do stands at the end of a file, behind its audio: `examine:segv`, or `blocks:hang`.
"""

import ctypes
import os
import signal
import time
from typing import BinaryIO, NoReturn

from k2d.audio import decode_server

ACTIONS = ("segv", "loop", "hang", "kill", "exit", "eat", "odd")


def marked(data: bytes, stage: str, action: str) -> bytes:
    """A file's content, with what its decoder does in `stage` (`examine` or `blocks`)."""
    return data + f"{stage}:{action}".encode()


def act(file: BinaryIO, stage: str) -> None:
    file.seek(-16, os.SEEK_END)
    last = file.read()
    file.seek(0)
    for action in ACTIONS:
        if last.endswith(f"{stage}:{action}".encode()):
            globals()[action]()


def segv() -> None:
    ctypes.string_at(0)


def loop() -> NoReturn:
    while True:
        pass


def hang() -> None:
    time.sleep(600)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exit() -> NoReturn:
    os._exit(3)


def eat() -> None:
    bytearray(16 << 30)


def odd() -> NoReturn:
    raise KeyError("odd")


def main() -> None:
    examine, blocks = decode_server.examine, decode_server.blocks

    def crashing_examine(file, **options):
        act(file, "examine")
        return examine(file, **options)

    def crashing_blocks(file, **options):
        act(file, "blocks")
        yield from blocks(file, **options)

    decode_server.examine, decode_server.blocks = crashing_examine, crashing_blocks  # type: ignore[assignment]
    decode_server.main()


if __name__ == "__main__":
    main()
