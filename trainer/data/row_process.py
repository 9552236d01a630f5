"""A process that prepares rows; `trainer.data.processes` starts it with two file descriptors, a channel's and a file's.

    python -m trainer.data.row_process CHANNEL MEMORY

Over the channel come the `Preparer` and then rows, one at a time; features are written to the memory. The process ends
when the other end of the channel is closed, also because the training process was killed.
"""

import mmap
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np

from k2d.whisper.features import FRAMES
from trainer.data.batch import PreparedRow
from trainer.data.prepare import Preparer


def serve(channel: Connection, memory: mmap.mmap) -> None:
    """Prepare rows until the channel is closed.

    Raises:
        EOFError, OSError: it is.
    """
    preparer: Preparer = channel.recv()
    slot = np.frombuffer(memory, np.float32).reshape(preparer.mels, FRAMES)
    while True:
        fields, visit, with_features = channel.recv()
        row = preparer.prepare(fields, visit=visit, with_features=with_features)
        if isinstance(row, PreparedRow) and row.features is not None:
            slot[:] = row.features
            row = replace(row, features=None)
        channel.send(row)


if __name__ == "__main__":
    # both are for the training process, which makes a checkpoint first; a service manager sends them to every process
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    descriptors = [int(argument) for argument in sys.argv[1:]]
    with suppress(EOFError, OSError):
        serve(Connection(descriptors[0]), mmap.mmap(descriptors[1], 0))
