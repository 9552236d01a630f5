"""Messages between a process that wants samples and the child process that decodes them, over a Unix socket."""

import json
import socket
import struct
from enum import IntEnum
from typing import Any, Final

_HEADER: Final = struct.Struct("<BI")  # kind, length of the payload in bytes
_LENGTH_MAX: Final = 64 << 20  # far more than a block of samples or a read; what is longer is no message


class MessageKind(IntEnum):
    """What a message is about."""

    JOB = 1  # to the child: what to decode, as JSON; the file's descriptor may come with it
    READ = 2  # from the child: it needs these bytes of the file, as JSON [offset, count]
    BYTES = 3  # to the child: the bytes
    READ_FAILED = 4  # to the child: the storage's error, as JSON [errno, message]
    PROGRESS = 5  # from the child: it is at work
    BLOCK = 6  # from the child: little-endian int16 samples
    RESULT = 7  # from the child: as JSON [result, whether it takes another job]
    AUDIO_ERROR = 8  # from the child: an AudioError, as JSON; nothing follows
    OUT_OF_MEMORY = 9  # from the child: the limit of its memory was reached; nothing follows
    EXCEPTION = 10  # from the child: an error that nobody foresaw, as text; nothing follows


class NoMessage(Exception):
    """The other side is gone, or what it sends is no message."""


def send(channel: socket.socket, kind: MessageKind, payload: bytes = b"", *, descriptors: tuple[int, ...] = ()) -> None:
    """Send a message, and open files with it.

    Raises:
        OSError: the other side is gone.
    """
    message = _HEADER.pack(kind, len(payload)) + payload
    if descriptors:
        sent = socket.send_fds(channel, [message], list(descriptors))
        message = message[sent:]
    if message:  # else the other side may have read all of it, answered, and ended
        channel.sendall(message)


def send_json(channel: socket.socket, kind: MessageKind, value: Any, *, descriptors: tuple[int, ...] = ()) -> None:
    """Send a message whose payload is JSON. Errors as of `send`."""
    send(channel, kind, json.dumps(value).encode(), descriptors=descriptors)


def parsed(payload: bytes) -> Any:
    """The value of a JSON payload.

    Raises:
        NoMessage: it is none.
    """
    try:
        return json.loads(payload)
    except ValueError as error:
        raise NoMessage from error


def receive(channel: socket.socket) -> tuple[MessageKind, bytes]:
    """Wait for a message.

    Raises:
        NoMessage: there is none, and will be none.
        TimeoutError: the socket has a time-out, and nothing came.
    """
    return _parse(channel, _exactly(channel, _HEADER.size))


def receive_job(channel: socket.socket) -> tuple[dict[str, Any], int | None]:
    """Wait for a message of kind JOB; returns its content, and the descriptor of an open file if there was any.

    Raises:
        NoMessage
    """
    head, descriptors, _, _ = socket.recv_fds(channel, _HEADER.size, 1)
    head += _exactly(channel, _HEADER.size - len(head))
    kind, payload = _parse(channel, head)
    if kind is not MessageKind.JOB:
        raise NoMessage
    return parsed(payload), descriptors[0] if descriptors else None


def _parse(channel: socket.socket, head: bytes) -> tuple[MessageKind, bytes]:
    number, length = _HEADER.unpack(head)
    if length > _LENGTH_MAX or number not in list(MessageKind):
        raise NoMessage
    return MessageKind(number), _exactly(channel, length)


def _exactly(channel: socket.socket, count: int) -> bytes:
    buffer = bytearray(count)
    view, filled = memoryview(buffer), 0
    while filled < count:
        try:
            received = channel.recv_into(view[filled:])
        except ConnectionError as error:
            raise NoMessage from error
        if not received:
            raise NoMessage
        filled += received
    return bytes(buffer)
