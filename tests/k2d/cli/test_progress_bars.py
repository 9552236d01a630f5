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
    monkeypatch.setattr(show, "err", Console(file=out, force_terminal=terminal, width=160))
    return out


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    out = printed(monkeypatch, terminal=False)
    with batch_bars() as on_status, bar("shards") as on_steps:
        on_status(HALF)
        on_steps(1, 2)
    assert out.getvalue() == ""


def test_a_batch_is_done_when_it_is_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    out = printed(monkeypatch, terminal=True)
    with batch_bars() as on_status:
        on_status(HALF)
        on_status(HALF.model_copy(update={"audio_s": 70.0}))  # a file turned out shorter than its header says
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
