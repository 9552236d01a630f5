"""Search and rules where the model is, against the same written plainly for one window, over made-up models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from k2d.schema import DecodeOptions, Window
from k2d.whisper.torch_rules import History, Rules
from k2d.whisper.torch_search import Candidate, Dice, Likeliest, SearchLimits, beam, one_by_one

TEXT, EOT, NO_TIMESTAMPS, BEGIN, SIZE = 20, 20, 23, 24, 40  # tokens: text, end-of-text, others, timestamps
OPTIONS = DecodeOptions(max_initial_timestamp_s=0.1)


class Words:
    """The part of a vocabulary that the rules need."""

    timestamp_begin, eot, no_timestamps, size = BEGIN, EOT, NO_TIMESTAMPS, SIZE
    suppressed = (21, 22, 3)
    suppressed_first = (EOT, 4)


def rules(options: DecodeOptions = OPTIONS) -> Rules:
    return Rules(Words(), options, device=torch.device("cpu"))  # type: ignore[arg-type]


def logits_of(window: int, tokens: Sequence[int]) -> np.ndarray:
    """A made-up model: the logits depend on the window and on all tokens so far."""
    seed = (window, len(tokens), *tokens)
    logits = np.random.default_rng(seed).normal(0, 2, SIZE).astype(np.float32)
    logits[EOT] += 0.7 * len(tokens) - 3 + window % 4  # windows end at different lengths
    return logits


@dataclass
class Cache:
    """In place of keys and values: which window a row belongs to, and its tokens."""

    of: list[int]
    tokens: list[list[int]]
    rows: int

    def reorder(self, rows: torch.Tensor) -> None:
        self.tokens = [list(self.tokens[row]) for row in rows.tolist()]
        self.of = [self.of[row] for row in rows.tolist()]

    def select(self, windows: torch.Tensor, rows: torch.Tensor) -> None:
        assert len(rows) == len(windows) * self.rows
        self.reorder(rows)


class MadeUp:
    """A decoder of the made-up model."""

    def step(self, cache: Cache, tokens: torch.Tensor) -> torch.Tensor:
        for own, token in zip(cache.tokens, tokens.tolist(), strict=True):
            own.append(token)
        found = [logits_of(window, own) for window, own in zip(cache.of, cache.tokens, strict=True)]
        return torch.from_numpy(np.stack(found))


def begin(windows: int, rows: int) -> tuple[Cache, torch.Tensor]:
    of = [window for window in range(windows) for _ in range(rows)]
    first = torch.from_numpy(np.stack([logits_of(window, []) for window in range(windows)]))
    return Cache(of, [[] for _ in of], rows), first


# ---- the same, plainly --------------------------------------------------------------------------------------------


def plain_rules(logits: np.ndarray, tokens: Sequence[int], *, timestamps: bool = True) -> np.ndarray:
    """Log-probabilities of the next token, by openai/whisper's rules."""
    row = logits.astype(np.float64)
    if not tokens:
        row[list(Words.suppressed_first)] = -np.inf
    row[list(Words.suppressed)] = -np.inf
    if timestamps:
        row[NO_TIMESTAMPS] = -np.inf
        if not tokens:
            row[:BEGIN] = -np.inf
            row[BEGIN + 5 + 1 :] = -np.inf  # 0.1 s
        else:
            one = tokens[-1] >= BEGIN
            two = one and (len(tokens) < 2 or tokens[-2] >= BEGIN)
            if two:
                row[BEGIN:] = -np.inf
            elif one:
                row[:EOT] = -np.inf
            stamps = [token for token in tokens if token >= BEGIN]
            if stamps:
                row[BEGIN : max(stamps) + (0 if one and not two else 1)] = -np.inf
        if _logsum(row[BEGIN:]) > row[:BEGIN].max():
            row[:BEGIN] = -np.inf
    return row - _logsum(row)


def _logsum(row: np.ndarray) -> float:
    top = row.max()
    return float(top + math.log(np.exp(row - top).sum())) if np.isfinite(top) else -math.inf


def plain_greedy(window: int, room: int) -> Candidate:
    tokens: list[int] = []
    total = 0.0
    for _ in range(room):
        logprobs = plain_rules(logits_of(window, tokens), tokens)
        token = int(logprobs.argmax())
        total += logprobs[token]
        if token == EOT:
            break
        tokens.append(token)
    return Candidate(tokens, total)


def plain_beam(window: int, room: int, size: int) -> Candidate:
    live, done = [Candidate([], 0.0)], list[Candidate]()
    for _ in range(room):
        options = []
        for candidate in live:
            logprobs = plain_rules(logits_of(window, candidate.tokens), candidate.tokens)
            likely = np.argsort(-logprobs)[: size + 1]
            options += [(candidate.total_logprob + logprobs[token], candidate.tokens, int(token)) for token in likely]
        options.sort(key=lambda option: -option[0])
        live = []
        for total, tokens, token in options:
            if token == EOT:
                done.append(Candidate(tokens, total))
            else:
                live.append(Candidate([*tokens, token], total))
            if len(live) == size:
                break
        if len(done) >= size:
            break
    return max(done or live, key=lambda candidate: candidate.total_logprob / max(1, len(candidate.tokens)))


def assert_same(found: list[Candidate], expected: list[Candidate]) -> None:
    assert [candidate.tokens for candidate in found] == [candidate.tokens for candidate in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.total_logprob == pytest.approx(theirs.total_logprob, abs=1e-4)


@pytest.mark.parametrize("look_every", [1, 3, 8])
@pytest.mark.parametrize("room", [1, 2, 12])
def test_greedy(room: int, look_every: int) -> None:
    cache, first = begin(9, 1)
    found = one_by_one(MadeUp(), cache, first, rules(), Likeliest(), SearchLimits(room, EOT, look_every))  # type: ignore[arg-type]
    expected = [plain_greedy(window, room) for window in range(9)]
    assert_same(found, expected)
    if room == 12:
        assert len({len(candidate.tokens) for candidate in expected}) > 3, "the windows are too much alike"


@pytest.mark.parametrize("look_every", [1, 3, 8])
@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("room", [1, 2, 12])
def test_beams(room: int, size: int, look_every: int) -> None:
    cache, first = begin(9, size)
    found = beam(MadeUp(), cache, first, rules(), SearchLimits(room, EOT, look_every))  # type: ignore[arg-type]
    assert_same(found, [plain_beam(window, room, size) for window in range(9)])


@pytest.mark.parametrize("look_every", [1, 4])
def test_what_is_sampled_of_a_window_does_not_depend_on_others(look_every: int) -> None:
    windows = [Window(np.full(100, number, np.int16)) for number in range(9)]

    def sampled(which: list[int]) -> list[Candidate]:
        made = begin(9, 3)
        rows = torch.tensor([3 * window + row for window in which for row in range(3)])
        made[0].reorder(rows)
        own = [windows[number] for number in which]
        dice = Dice(own, temperature=0.7, candidates=3, room=12, device=torch.device("cpu"))
        first = made[1][which]
        return one_by_one(MadeUp(), made[0], first, rules(), dice, SearchLimits(12, EOT, look_every))  # type: ignore[arg-type]

    together = sampled(list(range(9)))
    assert together == [sampled([number])[0] for number in range(9)]
    assert len({tuple(candidate.tokens) for candidate in together}) == 9


@given(
    st.lists(st.lists(st.sampled_from([0, 1, 3, *range(BEGIN, SIZE)]), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 1000),
)
def test_rules_of_many_rows_are_those_of_each(
    histories: list[list[int]], length: int, timestamps: bool, seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (len(histories), SIZE)).astype(np.float32)
    rule = rules(DecodeOptions(max_initial_timestamp_s=0.1, without_timestamps=not timestamps))
    history = History.of(len(histories), torch.device("cpu"))
    for step in range(length):
        history = rule.next(history, torch.tensor([row[step] for row in histories]))
    found = rule.apply(torch.from_numpy(logits.copy()), history).numpy()
    for ours, own, row in zip(found, logits, histories, strict=True):
        with np.errstate(all="ignore"):
            expected = plain_rules(own, row[:length], timestamps=timestamps)
        if np.isfinite(expected).any():  # a history that no decoding writes may forbid everything
            np.testing.assert_allclose(ours, expected, atol=1e-4)
