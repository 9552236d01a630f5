"""What is shown while a command runs, and what is said when it is stopped."""

import io
import signal

import pytest
import typer
from rich.console import Console

from k2d.cli import show
from k2d.cli.progress import bar, batch_bars, stoppable
from k2d.documents import PartialResult

HALF = PartialResult(seconds=60.0, validated_s=20.0, audio_s=80.0, recordings=1, total=2)


def printed(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=out, force_terminal=terminal, width=160, highlight=False))
    return out


def test_without_a_terminal_a_line_is_printed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("k2d.cli.progress.time.monotonic", lambda: now)
    out = printed(monkeypatch, terminal=False)
    half = HALF.model_copy(update={"times_real_time": 4.0})
    with batch_bars() as on_status, bar("shards") as on_steps, batch_bars(lines=False) as silent:
        on_status(half)
        assert out.getvalue() == ""  # what is over at once needs no line
        now += 31
        on_status(half)
        on_status(half)
        on_steps(1, 2)
        silent(half)
        line = "1 of 2 recordings, 40.0 s of 80.0 s labeled and validated, 4.0 × real time, less than a minute left\n"
        assert out.getvalue() == line + "shards: 1 of 2\n"
        now += 6
        on_status(half)  # nothing new
        on_status(half.model_copy(update={"validated_s": 60.0}))  # another tenth
        assert out.getvalue().count("recordings") == 2
        now += 31
        on_status(half.model_copy(update={"validated_s": 60.0}))
        assert out.getvalue().count("recordings") == 3


@pytest.mark.parametrize("terminal", [True, False])
def test_what_was_done_before_is_said_once(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    out = printed(monkeypatch, terminal=terminal)
    before = {"recordings_before": 12, "before_s": 12_000.0}
    with batch_bars() as on_status:
        status = PartialResult(seconds=12_000.0, validated_s=12_000.0, recordings=12, total=40, **before)
        on_status(status)
        on_status(status.model_copy(update={"recordings": 13}))
        on_status(PartialResult(seconds=9.0, recordings=2, total=2, recordings_before=2, before_s=9.0))  # another batch
    assert out.getvalue().count("going on: 12 of 40 recordings, 3.3 h of audio, were done already") == 1
    assert out.getvalue().count("nothing to label: 2 of 2 recordings, 9.0 s of audio, were done already") == 1


def test_a_batch_is_done_when_it_is_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    out = printed(monkeypatch, terminal=True)
    with batch_bars() as on_status:
        on_status(HALF.model_copy(update={"times_real_time": 4.0}))
        on_status(
            HALF.model_copy(update={"times_real_time": 4.0, "audio_s": 70.0})
        )  # a file turned out shorter than its header says
    for part in ("1/2", "60 s labeled, 20 s validated of 70", "real time"):
        assert part in out.getvalue()


def test_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    out = printed(monkeypatch, terminal=True)
    with bar("shards written") as on_steps:
        on_steps(3, 4)
    assert "3/4" in out.getvalue()
    assert "75%" in out.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    out = printed(monkeypatch, terminal=False)
    with pytest.raises(typer.Exit) as ended, stoppable("go on with: k2d resume"):
        signal.raise_signal(number)
    assert ended.value.exit_code == 128 + number
    assert "k2d resume" in out.getvalue()
