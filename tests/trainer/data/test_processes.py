"""Rows prepared in processes: what they die of costs a row's second attempt, and they never outlive the training."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from places import ROOT
from row_processes import row_processes
from structlog.testing import capture_logs

from k2d.datasets.read import FrozenDataset
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import PreparedRow
from trainer.data.prefetch import COLUMNS, Fields
from trainer.data.prepare import Preparer
from trainer.data.processes import RowProcesses
from trainer.errors import RowProcessDied
from trainer.options import Recipe

WAIT_S = 60.0  # for a machine that is busy; nothing here takes it


class Deadly:
    """Ends the process that unpickles it, by itself or by a signal."""

    def __init__(self, function: Any, argument: int) -> None:
        self.ending = function, (argument,)

    def __reduce__(self) -> Any:
        return self.ending


@pytest.fixture(scope="module")
def preparer(vocabulary: Vocabulary) -> Preparer:
    return Preparer(Recipe(holdout=0.0), vocabulary, 80)


@pytest.fixture(scope="module")
def fields(dataset: FrozenDataset) -> Fields:
    return dataset.read(dataset.groups()[0], COLUMNS)[0]


@pytest.fixture
def rows(preparer: Preparer) -> Iterator[RowProcesses]:
    """One process."""
    processes = RowProcesses(preparer, 1)
    yield processes
    processes.close()
    assert not row_processes()


def same(row: Any, as_row: Any) -> bool:
    assert isinstance(row, PreparedRow)
    assert isinstance(as_row, PreparedRow)
    return (row.id, row.label, row.seconds) == (as_row.id, as_row.label, as_row.seconds) and np.array_equal(
        row.features, as_row.features
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=str)
def test_a_row_is_prepared_again_when_its_process_was_killed(
    rows: RowProcesses, preparer: Preparer, fields: Fields, number: signal.Signals
) -> None:
    rows.prepare(fields, visit=0)
    (child,) = row_processes()
    child.send_signal(number)
    with capture_logs() as logs:
        row = rows.prepare(fields, visit=1)
    assert same(row, preparer.prepare(fields, visit=1))
    assert [line["row"] for line in logs] == [fields["id"]]
    assert number.name in logs[0]["how"]
    assert [other.pid for other in row_processes()] != [child.pid]


@pytest.mark.parametrize(
    ("deadly", "how"),
    [
        (Deadly(signal.raise_signal, signal.SIGKILL), "killed by SIGKILL"),
        (Deadly(signal.raise_signal, signal.SIGSEGV), "crashed by SIGSEGV"),
        (Deadly(sys.exit, 3), "with exit code 3"),
    ],
    ids=["killed", "crashed", "exit"],
)
def test_a_row_that_ends_two_processes_is_named(
    rows: RowProcesses, preparer: Preparer, fields: Fields, deadly: Deadly, how: str
) -> None:
    with pytest.raises(RowProcessDied, match=f"2 processes died while they prepared row '{fields['id']}'.*{how}") as it:
        rows.prepare(fields | {"previous_text": deadly}, visit=0)
    assert "worker_kind=threads" in (it.value.hint or "")
    assert same(rows.prepare(fields, visit=0), preparer.prepare(fields, visit=0))  # others go on


def test_an_error_in_a_process_is_printed_there(
    rows: RowProcesses, fields: Fields, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RowProcessDied, match="exit code 1"):
        rows.prepare({key: value for key, value in fields.items() if key != "segments"}, visit=0)
    assert "KeyError: 'segments'" in capfd.readouterr().err


def test_a_process_that_cannot_be_started(rows: RowProcesses, fields: Fields, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(RowProcessDied, match="no process can be started") as caught:
            rows.prepare(fields, visit=0)
    assert caught.value.hint
    assert isinstance(rows.prepare(fields, visit=0), PreparedRow)


def test_ctrl_c_and_sigterm_are_for_the_training_process(rows: RowProcesses, fields: Fields) -> None:
    rows.prepare(fields, visit=0)
    (child,) = row_processes()
    assert os.getpgid(child.pid) != os.getpgid(0)  # a terminal's signals do not even reach it
    for number in (signal.SIGINT, signal.SIGTERM):
        child.send_signal(number)
    with capture_logs() as logs:
        rows.prepare(fields, visit=0)
    assert not logs
    assert row_processes() == [child]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_shared_memory_has_no_name(rows: RowProcesses, fields: Fields) -> None:
    rows.prepare(fields, visit=0)
    maps = Path(f"/proc/{row_processes()[0].pid}/maps").read_text()
    assert "memfd:k2d-features" in maps
    assert "/dev/shm" not in maps


STREAM_FOR_EVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from multiprocessing.connection import Connection
from pathlib import Path
from k2d.datasets.read import FrozenDataset
from k2d.store import Lake
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.stream import TrainingData
from trainer.options import Recipe

recipe = Recipe(batch=8, micro_batch=8, lanes=2, workers=2, worker_kind="processes")
dataset = FrozenDataset(Lake(sys.argv[1]), "talks")
data = TrainingData(dataset, recipe, vocabulary=Vocabulary(Path(sys.argv[2])), mels=80)
for number, _ in enumerate(data.steps(0)):
    print(number, flush=True)
    if sys.argv[3] == "end" and number == 2:
        sys.stdin.readline()
        break
"""


@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM", "SIGINT", "end"])
def test_processes_end_with_one_that_does_not_close_its_data(
    dataset: FrozenDataset, vocabulary: Vocabulary, ending: str
) -> None:
    training = subprocess.Popen(
        [sys.executable, "-c", STREAM_FOR_EVER, dataset._lake.files.root, str(vocabulary._file), ending],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(3):
            assert training.stdout.readline()
        workers = row_processes(training.pid)
        assert len(workers) == 2
        if ending != "end":
            training.send_signal(signal.Signals[ending])
        training.communicate(timeout=WAIT_S)
        assert not psutil.wait_procs(workers, timeout=WAIT_S)[1]
    finally:
        training.kill()


def test_an_answer_that_nobody_waited_for_is_not_another_rows(
    rows: RowProcesses, preparer: Preparer, dataset: FrozenDataset, fields: Fields, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.prepare(fields, visit=0)
    with monkeypatch.context() as interrupted:

        def ctrl_c(_: Connection) -> None:
            raise KeyboardInterrupt

        interrupted.setattr(Connection, "recv", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            rows.prepare(fields, visit=0)
    other = dataset.read(dataset.groups()[1], COLUMNS)[0]
    assert same(rows.prepare(other, visit=0), preparer.prepare(other, visit=0))
