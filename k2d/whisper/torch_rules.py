"""Whisper's rules for which token may come next: timestamps and suppression (openai/whisper, decoding.py).

Computed for all rows at once where the logits are, so that no token waits for the host.
"""

from dataclasses import dataclass

import torch

from k2d.schema import DecodeOptions
from k2d.whisper.features import TOKEN_S
from k2d.whisper.torch_decoder import NEVER
from k2d.whisper.vocabulary import Vocabulary


@dataclass(slots=True)
class History:
    """What the rules need to know of the tokens that each row has generated; tensors have shape (rows,)."""

    last: torch.Tensor  # the last token; 0 before the first
    before: torch.Tensor  # the one before it
    stamp: torch.Tensor  # the latest timestamp; -1: none
    length: int = 0  # tokens of every row

    @classmethod
    def of(cls, rows: int, device: torch.device) -> "History":
        """The history of rows that have generated nothing."""
        zeros = torch.zeros(rows, dtype=torch.long, device=device)
        return cls(zeros, zeros, zeros - 1)

    def then(self, tokens: torch.Tensor, *, timestamp_begin: int) -> "History":
        """The history after one more token in each row."""
        stamp = torch.where(tokens >= timestamp_begin, torch.maximum(tokens, self.stamp), self.stamp)
        return History(tokens, self.last, stamp, self.length + 1)

    def select(self, rows: torch.Tensor) -> "History":
        """The history of other rows, by their indices."""
        return History(self.last[rows], self.before[rows], self.stamp[rows], self.length)


class Rules:
    """Masks the logits of forbidden tokens, given the history of each row."""

    def __init__(self, vocabulary: Vocabulary, options: DecodeOptions, *, device: torch.device) -> None:
        self._timestamps = not options.without_timestamps
        self._begin, self._eot = vocabulary.timestamp_begin, vocabulary.eot
        self._no_timestamps = vocabulary.no_timestamps
        self._last_first = vocabulary.timestamp_begin + round(options.max_initial_timestamp_s / TOKEN_S)
        self._suppressed = torch.tensor(vocabulary.suppressed, dtype=torch.long, device=device)
        self._suppressed_first = torch.tensor(vocabulary.suppressed_first, dtype=torch.long, device=device)

    def apply(self, logits: torch.Tensor, history: History) -> torch.Tensor:
        """Log-probabilities of the next token, shape (rows, vocabulary); −inf for forbidden ones.

        `logits`: float32 of the same shape; changed in place.
        """
        if history.length == 0:
            logits[:, self._suppressed_first] = NEVER
        logits[:, self._suppressed] = NEVER
        if self._timestamps:
            self._order(logits, history)
            self._prefer_timestamps(logits)
        return torch.log_softmax(logits, dim=-1)

    def next(self, history: History, tokens: torch.Tensor) -> History:
        """The history after one more token in each row."""
        return history.then(tokens, timestamp_begin=self._begin)

    def _order(self, logits: torch.Tensor, history: History) -> None:
        """Timestamps come in pairs, except before end-of-text; they never decrease; the first token is a timestamp."""
        logits[:, self._no_timestamps] = NEVER
        if history.length == 0:
            logits[:, : self._begin] = NEVER
            logits[:, self._last_first + 1 :] = NEVER
            return
        after_one = history.last >= self._begin
        after_two = after_one & (history.before >= self._begin if history.length > 1 else torch.ones_like(after_one))
        opens = after_one & ~after_two
        logits[:, : self._eot].masked_fill_(opens[:, None], NEVER)
        stamps = torch.arange(self._begin, logits.shape[-1], device=logits.device)
        # only a closing timestamp may be repeated, as the next opening one
        least = torch.where(history.stamp < 0, self._begin, history.stamp + torch.where(opens, 0, 1))
        logits[:, self._begin :].masked_fill_(after_two[:, None] | (stamps < least[:, None]), NEVER)

    def _prefer_timestamps(self, logits: torch.Tensor) -> None:
        """If all timestamps together are more probable than any text token, the next token is a timestamp."""
        logprobs = torch.log_softmax(logits, dim=-1)
        stamps = torch.logsumexp(logprobs[:, self._begin :], dim=-1)
        text = logprobs[:, : self._begin].max(dim=-1).values
        logits[:, : self._begin].masked_fill_((stamps > text)[:, None], NEVER)
