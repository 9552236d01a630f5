"""Whisper's rules for which token may come next: timestamps and suppression (openai/whisper, decoding.py)."""

from collections.abc import Sequence
from typing import Final

import torch

from k2d.schema import DecodeOptions
from k2d.whisper.features import TOKEN_S
from k2d.whisper.vocabulary import Vocabulary

NEVER: Final = float("-inf")


class Rules:
    """Masks the logits of forbidden tokens, given the tokens that each row has generated."""

    def __init__(self, vocabulary: Vocabulary, options: DecodeOptions, *, device: torch.device) -> None:
        self._vocabulary = vocabulary
        self._timestamps = not options.without_timestamps
        self._last_first = vocabulary.timestamp_begin + round(options.max_initial_timestamp_s / TOKEN_S)
        self._suppressed = torch.tensor(vocabulary.suppressed, device=device)
        self._suppressed_first = torch.tensor(vocabulary.suppressed_first, device=device)

    def apply(self, logits: torch.Tensor, generated: Sequence[Sequence[int]]) -> torch.Tensor:
        """Log-probabilities of the next token, shape (rows, vocabulary); −inf for forbidden ones.

        Args:
            logits: float32 of shape (rows, vocabulary); changed in place.
            generated: the tokens of each row so far; all rows have the same length.
        """
        if not generated[0]:
            logits[:, self._suppressed_first] = NEVER
        logits[:, self._suppressed] = NEVER
        if self._timestamps:
            for row, tokens in zip(logits, generated, strict=True):
                self._order(row, tokens)
            self._prefer_timestamps(logits)
        return torch.log_softmax(logits, dim=-1)

    def _order(self, row: torch.Tensor, tokens: Sequence[int]) -> None:
        """Timestamps come in pairs, except before end-of-text; they never decrease; the first token is a timestamp."""
        first, eot = self._vocabulary.timestamp_begin, self._vocabulary.eot
        row[self._vocabulary.no_timestamps] = NEVER
        if not tokens:
            row[:first] = NEVER
            row[self._last_first + 1 :] = NEVER
            return
        after_one = tokens[-1] >= first
        after_two = after_one and (len(tokens) < 2 or tokens[-2] >= first)
        if after_two:
            row[first:] = NEVER
        elif after_one:
            row[:eot] = NEVER
        latest = max((token for token in tokens if token >= first), default=None)
        if latest is not None:  # only a closing timestamp may be repeated, as the next opening one
            row[first : latest + (0 if after_one and not after_two else 1)] = NEVER

    def _prefer_timestamps(self, logits: torch.Tensor) -> None:
        """If all timestamps together are more probable than any text token, the next token is a timestamp."""
        first = self._vocabulary.timestamp_begin
        logprobs = torch.log_softmax(logits, dim=-1)
        stamps = torch.logsumexp(logprobs[:, first:], dim=-1)
        text = logprobs[:, :first].max(dim=-1).values
        logits[:, :first].masked_fill_((stamps > text)[:, None], NEVER)
