"""Greedy, beam and sampled decoding for the transformers engine, one step at a time with a key-value cache."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, EncoderDecoderCache

from k2d.schema import Window
from k2d.whisper.torch_rules import NEVER, Rules

Choose = Callable[[torch.Tensor], list[int]]  # log-probabilities (rows, vocabulary) → a token for each row


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token sequence of one window, finished or cut off."""

    tokens: list[int]  # without end-of-text
    total_logprob: float  # end-of-text included


@dataclass(frozen=True, slots=True)
class PromptState:
    """The state after the prompt."""

    logits: torch.Tensor  # of the first token, shape (1, vocabulary)
    cache: EncoderDecoderCache
    no_speech: float  # probability of <|nospeech|> after start-of-transcript


class Stepper:
    """Runs the decoder over one window: first the prompt, then token by token, in several rows."""

    def __init__(self, model: Any, *, encoded: torch.Tensor, mixed: int) -> None:
        self._model = model
        self._encoded = encoded  # (1, 1500, width)
        self._mixed = mixed

    def start(self, prompt: Sequence[int], *, sot_at: int, no_speech: int) -> PromptState:
        """Run the prompt.

        Args:
            sot_at: index of start-of-transcript in `prompt`.
            no_speech: id of <|nospeech|>.
        """
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        logits = self._logits([list(prompt)], cache)
        silence = torch.softmax(logits[0, sot_at], dim=-1)[no_speech]
        return PromptState(logits[:, -1], cache, float(silence))

    def next(self, tokens: Sequence[int], cache: EncoderDecoderCache) -> torch.Tensor:
        """Logits, shape (rows, vocabulary), after one more token in each row; extends the cache."""
        return self._logits([[token] for token in tokens], cache)[:, -1]

    def forced(self, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """Logits, shape (tokens, vocabulary), at the position of each of `tokens`, in one pass (teacher-forced)."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        return self._logits([[*prompt, *tokens[:-1]]], cache)[0, len(prompt) - 1 :]

    def _logits(self, ids: list[list[int]], cache: EncoderDecoderCache) -> torch.Tensor:
        hidden = self._model.model.decoder(
            input_ids=torch.tensor(ids, device=self._encoded.device),
            encoder_hidden_states=self._encoded.expand(len(ids), -1, -1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits: torch.Tensor = self._model.proj_out(hidden).float()
        logits[..., self._mixed] = NEVER  # the mixed row is never predicted, as in ct2_file.with_mixed_row
        return logits


class TokenSampler:
    """Samples tokens with random numbers that depend only on the window, the temperature and the candidate's number."""

    def __init__(self, window: Window, *, temperature: float, candidate: int) -> None:
        seed = hashlib.sha256(np.ascontiguousarray(window.samples).tobytes())
        seed.update(f"{window.prompt} {temperature} {candidate}".encode())
        self._random = np.random.default_rng(int.from_bytes(seed.digest()[:16]))

    def draw(self, weights: npt.NDArray[np.float64]) -> int:
        """Draw an index with probability proportional to its weight; `weights` has shape (vocabulary,)."""
        cumulative = np.cumsum(weights)
        return int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))


def greedy(stepper: Stepper, start: PromptState, rules: Rules, *, room: int, eot: int) -> Candidate:
    """Greedy decoding: the most probable token at each step."""
    return _decode_rows(stepper, start, rules, rows=1, room=room, eot=eot, choose=_likeliest)[0]


def _likeliest(logprobs: torch.Tensor) -> list[int]:
    return [int(token) for token in logprobs.argmax(dim=-1)]


def sample(
    stepper: Stepper,
    start: PromptState,
    rules: Rules,
    *,
    samplers: Sequence[TokenSampler],
    temperature: float,
    room: int,
    eot: int,
) -> Candidate:
    """Sample one sequence with each of `samplers`; return the one with the highest mean log-probability."""

    def choose(logprobs: torch.Tensor) -> list[int]:
        weights = np.exp(logprobs.double().cpu().numpy() / temperature)
        return [sampler.draw(row) for sampler, row in zip(samplers, weights, strict=True)]

    start.cache.batch_repeat_interleave(len(samplers))
    return _best(_decode_rows(stepper, start, rules, rows=len(samplers), room=room, eot=eot, choose=choose))


def _best(candidates: Sequence[Candidate]) -> Candidate:
    return max(candidates, key=lambda candidate: candidate.total_logprob / max(1, len(candidate.tokens)))


def _decode_rows(
    stepper: Stepper, start: PromptState, rules: Rules, *, rows: int, room: int, eot: int, choose: Choose
) -> list[Candidate]:
    """Decode all rows until each has ended; ended rows are padded with end-of-text."""
    logits = start.logits.repeat_interleave(rows, dim=0)
    generated: list[list[int]] = [[] for _ in range(rows)]
    totals, ended = [0.0] * rows, [False] * rows
    for step in range(room):
        logprobs = rules.apply(logits, generated)
        for row, token in enumerate(choose(logprobs)):
            generated[row].append(eot if ended[row] else token)
            totals[row] += 0.0 if ended[row] else float(logprobs[row, token])
            ended[row] = ended[row] or token == eot
        if all(ended) or step == room - 1:
            break
        logits = stepper.next([tokens[-1] for tokens in generated], start.cache)
    return [Candidate(_until(tokens, eot), total) for tokens, total in zip(generated, totals, strict=True)]


def beam(stepper: Stepper, start: PromptState, rules: Rules, *, room: int, eot: int, size: int) -> Candidate:
    """Beam search: extend the `size` most probable sequences until as many have ended.

    Returns the one with the highest mean log-probability over its tokens.
    """
    start.cache.batch_repeat_interleave(size)
    logits = start.logits.repeat_interleave(size, dim=0)
    live: list[Candidate] = [Candidate([], 0.0)] + [Candidate([], float("-inf"))] * (size - 1)
    done: list[Candidate] = []
    for step in range(room):
        logprobs = rules.apply(logits, [c.tokens for c in live])
        top = logprobs.topk(size + 1, dim=-1)
        options = [
            (live[row].total_logprob + value, row, token)
            for row in range(size)
            for value, token in zip(top.values[row].tolist(), top.indices[row].tolist(), strict=True)
        ]
        options.sort(key=lambda option: (-option[0], option[1], option[2]))
        kept: list[tuple[float, int, int]] = []
        for total, row, token in options:
            if token == eot:
                done.append(Candidate(live[row].tokens, total))
            else:
                kept.append((total, row, token))
            if len(kept) == size:
                break
        live = [Candidate([*live[row].tokens, token], total) for total, row, token in kept]
        if len(done) >= size or step == room - 1:
            break
        rows = torch.tensor([row for _, row, _ in kept], device=logits.device)
        start.cache.reorder_cache(rows)  # type: ignore[arg-type]  # annotated as the legacy LongTensor
        logits = stepper.next([token for _, _, token in kept], start.cache)
    return _best(done or live)


def _until(tokens: list[int], eot: int) -> list[int]:
    return tokens[: tokens.index(eot)] if eot in tokens else tokens
