"""Greedy, beam and sampled decoding of many windows at once, for the transformers engine.

Everything that a token needs happens where the model is. Now and then the host asks which windows have ended; when half
of them have, they are taken out, so that few long ones do not drag all others along.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch

from k2d.schema import Window
from k2d.whisper.torch_decoder import NEVER, DecoderCache, WindowDecoder
from k2d.whisper.torch_rules import History, Rules

LOOK_EVERY: Final = 8  # tokens from one question to a GPU to the next: each waits until it has caught up


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token sequence of one window, finished or cut off."""

    tokens: list[int]  # without end-of-text
    total_logprob: float  # end-of-text included


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """When decoding ends."""

    room: int  # tokens, end-of-text included
    eot: int
    look_every: int = 1

    def looks(self, step: int) -> bool:
        """Whether the host asks after this step which windows have ended."""
        return (step + 1) % self.look_every == 0


class Choice(Protocol):
    """Chooses the next token of each row."""

    def tokens(self, logprobs: torch.Tensor, step: int) -> torch.Tensor:
        """A token for each row, shape (rows,), by the log-probabilities of shape (rows, vocabulary)."""
        ...

    def select(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        ...


class Likeliest:
    """Greedy decoding: the most probable token."""

    def tokens(self, logprobs: torch.Tensor, step: int) -> torch.Tensor:
        return logprobs.argmax(dim=-1)

    def select(self, rows: torch.Tensor) -> None:
        """Every row is as good as another."""


class Dice:
    """Samples with random numbers that depend only on the window, the temperature and the candidate's number."""

    def __init__(
        self, windows: Sequence[Window], *, temperature: float, candidates: int, room: int, device: torch.device
    ) -> None:
        self._temperature = temperature
        numbers = [
            _random(window, temperature, candidate).random(room)
            for window in windows
            for candidate in range(candidates)
        ]
        self._numbers = torch.from_numpy(np.stack(numbers)).to(device)  # (rows, room), 0…1

    def tokens(self, logprobs: torch.Tensor, step: int) -> torch.Tensor:
        cumulative = torch.cumsum(torch.exp(logprobs.double() / self._temperature), dim=-1)
        drawn = self._numbers[:, step, None] * cumulative[:, -1:]
        found = torch.searchsorted(cumulative, drawn, right=True)[:, 0]
        return found.clamp_(max=logprobs.shape[-1] - 1)

    def select(self, rows: torch.Tensor) -> None:
        self._numbers = self._numbers[rows]


def _random(window: Window, temperature: float, candidate: int) -> np.random.Generator:
    seed = hashlib.sha256(np.ascontiguousarray(window.samples).tobytes())
    seed.update(f"{window.prompt} {temperature} {candidate}".encode())
    return np.random.default_rng(int.from_bytes(seed.digest()[:16]))


def one_by_one(
    decoder: WindowDecoder,
    cache: DecoderCache,
    logits: torch.Tensor,
    rules: Rules,
    choice: Choice,
    limits: SearchLimits,
) -> list[Candidate]:
    """Decode every row by itself; of each window's rows, the one with the highest mean log-probability.

    Args:
        cache: after the prompts.
        logits: of each window's first token, shape (windows, vocabulary).
    """
    windows, rows = list(range(len(logits))), cache.rows
    logits = logits.repeat_interleave(rows, dim=0)
    device, count = logits.device, len(logits)
    tokens = torch.full((count, limits.room), limits.eot, device=device)
    totals = torch.zeros(count, dtype=torch.float64, device=device)
    ended = torch.zeros(count, dtype=torch.bool, device=device)
    history, found = History.of(count, device), dict[int, Candidate]()

    def harvest(which: list[int]) -> None:
        """Bring the windows at these places to the host."""
        lists, sums = tokens.tolist(), totals.tolist()
        for place in which:
            own = range(place * rows, (place + 1) * rows)
            found[windows[place]] = _best([Candidate(_until(lists[row], limits.eot), sums[row]) for row in own])

    for step in range(limits.room):
        logprobs = rules.apply(logits, history)
        chosen = torch.where(ended, limits.eot, choice.tokens(logprobs, step))
        gained = logprobs.gather(1, chosen[:, None])[:, 0].double()
        totals += torch.where(ended, 0.0, gained)
        tokens[:, step] = chosen
        ended |= chosen == limits.eot
        if step == limits.room - 1:
            break
        if limits.looks(step):
            over = ended.view(-1, rows).all(dim=1).tolist()
            if all(over):
                break
            if 2 * sum(over) >= len(windows):
                harvest([place for place, is_over in enumerate(over) if is_over])
                kept, kept_rows = _kept(over, rows, device)
                cache.select(kept, kept_rows)
                choice.select(kept_rows)
                tokens, totals, ended, chosen = (each[kept_rows] for each in (tokens, totals, ended, chosen))
                history = history.select(kept_rows)
                windows = [window for window, is_over in zip(windows, over, strict=True) if not is_over]
        history = rules.next(history, chosen)
        logits = decoder.step(cache, chosen)
    harvest(list(range(len(windows))))
    return [found[window] for window in sorted(found)]


def beam(
    decoder: WindowDecoder, cache: DecoderCache, logits: torch.Tensor, rules: Rules, limits: SearchLimits
) -> list[Candidate]:
    """Beam search: extend the most probable sequences of each window, `cache.rows` of them, until as many have ended.

    Returns for each window the one with the highest mean log-probability over its tokens; of those that have ended, if
    there are any. Arguments as for `one_by_one`.
    """
    windows, size = list(range(len(logits))), cache.rows
    logits = logits.repeat_interleave(size, dim=0)
    device, count = logits.device, len(windows)
    tokens = torch.full((count, size, limits.room), limits.eot, device=device)
    totals = torch.full((count, size), NEVER, dtype=torch.float64, device=device)
    totals[:, 0] = 0.0
    best = torch.full((count,), NEVER, dtype=torch.float64, device=device)  # of ended sequences: mean log-probability
    best_total, best_tokens = best.clone(), tokens[:, 0].clone()
    ended = torch.zeros(count, dtype=torch.long, device=device)  # sequences
    history, found = History.of(count * size, device), dict[int, Candidate]()

    def harvest(which: list[int]) -> None:
        lists, sums, live = best_tokens.tolist(), best_total.tolist(), totals.tolist()
        for place in which:
            candidates = [Candidate(_until(lists[place], limits.eot), sums[place])]
            if sums[place] == NEVER:  # none has ended
                own = tokens[place].tolist()
                candidates = [Candidate(_until(own[row], limits.eot), live[place][row]) for row in range(size)]
            found[windows[place]] = _best(candidates)

    for step in range(limits.room):
        likely = rules.apply(logits, history).topk(size + 1, dim=-1)
        sums = (totals.view(-1, 1) + likely.values.double()).view(len(windows), -1)
        order = torch.sort(sums, dim=1, descending=True, stable=True)
        row = order.indices // (size + 1)
        token = likely.indices.view(len(windows), -1).gather(1, order.indices)
        is_end = token == limits.eot
        kept_before = torch.cumsum(~is_end, dim=1) - (~is_end).long()
        ends = is_end & (kept_before < size)
        # all sequences that end here are equally long, so the most probable of them is the best
        total, place = torch.where(ends, order.values, NEVER).max(dim=1)
        mean = total / max(1, step)
        is_better = (mean > best) & (ended < size)
        parent = row.gather(1, place[:, None])[:, :, None].expand(-1, 1, limits.room)
        best_tokens = torch.where(is_better[:, None], tokens.gather(1, parent)[:, 0], best_tokens)
        best, best_total = torch.where(is_better, mean, best), torch.where(is_better, total, best_total)
        ended += ends.sum(dim=1)
        kept = torch.sort(is_end.int(), dim=1, stable=True).indices[:, :size]  # the first `size` that go on
        row, token, totals = row.gather(1, kept), token.gather(1, kept), order.values.gather(1, kept)
        tokens = tokens.gather(1, row[:, :, None].expand(-1, -1, limits.room))
        tokens[:, :, step] = token
        if step == limits.room - 1:
            break
        rows = (torch.arange(len(windows), device=device)[:, None] * size + row).flatten()
        if limits.looks(step):
            over = (ended >= size).tolist()
            if all(over):
                break
            if 2 * sum(over) >= len(windows):
                harvest([place for place, is_over in enumerate(over) if is_over])
                left, left_rows = _kept(over, size, device)
                cache.reorder(rows)
                cache.select(left, left_rows)
                history, token = history.select(rows[left_rows]), token[left]
                tokens, totals, ended = tokens[left], totals[left], ended[left]
                best, best_total, best_tokens = best[left], best_total[left], best_tokens[left]
                windows = [window for window, is_over in zip(windows, over, strict=True) if not is_over]
                rows = torch.arange(len(left_rows), device=device)
        cache.reorder(rows)
        history = rules.next(history.select(rows), token.flatten())
        logits = decoder.step(cache, token.flatten())
    harvest(list(range(len(windows))))
    return [found[window] for window in sorted(found)]


def _kept(over: list[bool], rows: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The places of the windows that are not over, and of their rows."""
    kept = torch.tensor([place for place, is_over in enumerate(over) if not is_over], device=device)
    return kept, (kept[:, None] * rows + torch.arange(rows, device=device)).flatten()


def _best(candidates: Sequence[Candidate]) -> Candidate:
    return max(candidates, key=lambda candidate: candidate.total_logprob / max(1, len(candidate.tokens)))


def _until(tokens: list[int], eot: int) -> list[int]:
    return tokens[: tokens.index(eot)] if eot in tokens else tokens
