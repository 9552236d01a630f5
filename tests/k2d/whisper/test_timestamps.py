"""What a window's tokens mean: a plain table. `T(s)` is a timestamp, letters are text tokens."""

import pytest

from k2d.whisper.timestamps import read_window

FIRST = 1000
RATE = 16_000


class Letters:
    """A vocabulary of code points: 97 is "a"."""

    timestamp_begin = FIRST
    eot = 900

    def decode(self, tokens: tuple[int, ...] | list[int]) -> str:
        return "".join(map(chr, tokens))


def T(seconds: float) -> list[int]:  # noqa: N802  reads as the timestamp it writes
    return [FIRST + round(seconds / 0.02)]


def text(letters: str) -> list[int]:
    return [ord(letter) for letter in letters]


TABLE = [
    # tokens, seconds of audio, pieces, where to resume
    ("nothing", [], 30, [], None),
    ("one closed piece", T(0) + text("ab") + T(4), 30, [(0, 4, "ab")], None),
    ("a lone piece starts at its own timestamp", T(0.5) + text("ab") + T(4), 30, [(0.5, 4, "ab")], None),
    ("one open piece reaches the end", T(0) + text("ab"), 12, [(0, 12, "ab")], None),
    ("no timestamps at all", text("ab"), 12, [(0, 12, "ab")], None),
    (
        "two closed pieces and a lone end: the window is done",
        T(0) + text("a") + T(2) + T(2) + text("b") + T(5),
        30,
        [(0, 2, "a"), (2, 5, "b")],
        None,
    ),
    (
        "two closed pieces and an open pair: resume there",
        T(0) + text("a") + T(2) + T(3) + text("b") + T(5) + T(5),
        30,
        [(0, 2, "a"), (3, 5, "b")],
        5,
    ),
    (
        "an unfinished piece is decoded again",
        T(0) + text("a") + T(2) + T(2.5) + text("bc"),
        30,
        [(0, 2, "a")],
        2,
    ),
    ("text without length is dropped", T(1) + text("a") + T(1) + T(1) + text("b") + T(3), 30, [(1, 3, "b")], None),
    ("length without text is dropped", T(0) + T(2) + T(2) + text("b") + T(3), 30, [(2, 3, "b")], None),
    ("blank text is dropped", T(0) + text(" ") + T(2), 30, [], None),
    (
        "times past the audio are clamped",
        T(0) + text("a") + T(2) + T(2) + text("b") + T(9),
        5,
        [(0, 2, "a"), (2, 5, "b")],
        None,
    ),
    ("pieces past the audio are dropped", T(0) + text("a") + T(2) + T(6) + text("b") + T(9), 5, [(0, 2, "a")], None),
    ("resuming at the start would never end", T(0) + T(0), 30, [], None),
    ("resuming past the audio means its end", T(0) + text("a") + T(9) + T(9), 5, [(0, 5, "a")], None),
]


@pytest.mark.parametrize(
    ("tokens", "seconds", "pieces", "resume"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_reading(
    tokens: list[int], seconds: float, pieces: list[tuple[float, float, str]], resume: float | None
) -> None:
    whole, found, resume_s = read_window(tokens, vocabulary=Letters(), samples=int(seconds * RATE))
    assert [(p.start_s, p.end_s, p.text) for p in found] == pieces
    assert [p.tokens for p in found] == [tuple(text(p[2])) for p in pieces]
    assert whole == "".join(p[2] for p in pieces).strip()
    assert resume_s == resume
