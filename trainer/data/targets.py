"""A training row's label as the tokens that teacher and student are fed with, or why it has none. Pure."""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from k2d.errors import BadRequest
from k2d.schema import WINDOW_S
from k2d.whisper import scoring
from k2d.whisper.features import TOKEN_S
from k2d.whisper.prompts import PREVIOUS_TEXT, language_token
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import DecoderTokens
from trainer.data.draws import generator
from trainer.options import Recipe

LAST_TIMESTAMP: Final = round(WINDOW_S / TOKEN_S)  # 1500: <|30.00|>

_INSIDE_SPECIAL = re.compile(r"(?<=<)(?=\|)")  # between < and | of <|…|>


class SkipReason(StrEnum):
    """Why a row is not trained on."""

    EMPTY = "no text"
    TOO_MANY_TOKENS = "more tokens than max_tokens"
    DAMAGED = "damaged audio"
    TOO_LONG = "audio of more than 30 s"
    HELD_OUT = "held out for validation"

    @property
    def is_broken(self) -> bool:
        """Whether the dataset is at fault; otherwise the recipe left the row out."""
        return self in (SkipReason.EMPTY, SkipReason.DAMAGED, SkipReason.TOO_LONG)


def tokenize_label(
    fields: Mapping[str, Any], *, vocabulary: Vocabulary, recipe: Recipe, visit: int
) -> DecoderTokens | SkipReason:
    """The label of a row (fields of `k2d.datasets.rows.SCHEMA`; no audio needed) as tokens, or why it has none.

    Timestamps are kept with the recipe's probability, and previous text is put before the label with another one; both
    are drawn anew for each visit. Previous text that does not fit is cut at its front; a label is never cut.
    """
    draws = generator("label", recipe.seed, visit, fields["id"])
    stamped, prompted = draws.random(2) < (recipe.timestamp_probability, recipe.prompt_probability)
    segments = [segment for segment in fields["segments"] or () if segment["text"].strip()]
    if stamped and segments:
        text = _with_timestamps(segments, vocabulary=vocabulary)
    else:
        stamped = False
        text = _first_text(fields["text"], vocabulary=vocabulary)
    if not any(token < vocabulary.eot for token in text):
        return SkipReason.EMPTY
    start = [vocabulary.sot, language_token(recipe.language, vocabulary=vocabulary), vocabulary.transcribe]
    if not stamped:
        start.append(vocabulary.no_timestamps)
    room = recipe.max_tokens - len(start) - len(text) - 1  # 1: the end
    if room < 0:
        return SkipReason.TOO_MANY_TOKENS
    if prompted and fields["previous_text"]:
        start = [*_previous_text(fields["previous_text"], room=room, vocabulary=vocabulary), *start]
    return DecoderTokens(
        tokens=(*start, *text, vocabulary.eot),
        prompt=len(start),
        weight=1.0 - recipe.distance_weight * min(fields["distance"], 1.0),
    )


def _with_timestamps(segments: Sequence[Mapping[str, Any]], *, vocabulary: Vocabulary) -> list[int]:
    """<|0.00|> text<|2.40|><|2.40|> text<|5.00|>: times never go backwards, and no segment is without length."""
    tokens: list[int] = []
    step = 0
    for segment in segments:
        begin = max(step, min(round(segment["start_s"] / TOKEN_S), LAST_TIMESTAMP - 1))
        step = max(begin + 1, min(round(segment["end_s"] / TOKEN_S), LAST_TIMESTAMP))
        step = min(step, LAST_TIMESTAMP)
        tokens += [
            vocabulary.timestamp_begin + begin,
            *_text(segment["text"], vocabulary=vocabulary),
            vocabulary.timestamp_begin + step,
        ]
    return tokens


def _previous_text(text: str, *, room: int, vocabulary: Vocabulary) -> list[int]:
    """<|startofprev|> and the end of the previous text; nothing where not even one token of it fits."""
    tokens = _first_text(text, vocabulary=vocabulary)
    fits = min(room - 1, PREVIOUS_TEXT)
    return [vocabulary.sot_prev, *tokens[-fits:]] if tokens and fits > 0 else []


def _first_text(text: str, *, vocabulary: Vocabulary) -> list[int]:
    """A text's tokens as Whisper begins it: with a leading space or without, by its script."""
    try:
        return list(scoring.tokens(text, vocabulary=vocabulary))
    except BadRequest:  # the text contains the spelling of a special token: it is encoded as ordinary characters
        first, *rest = _INSIDE_SPECIAL.split(text.strip())
        begun = scoring.tokens(first, vocabulary=vocabulary)
        return [*begun, *(token for part in rest for token in vocabulary.encode(part))]


def _text(text: str, *, vocabulary: Vocabulary) -> list[int]:
    """A text's tokens with its own leading space; <|zh|> in it is encoded as ordinary characters."""
    tokens = vocabulary.encode(text)
    if all(token < vocabulary.eot for token in tokens):
        return tokens
    return [token for part in _INSIDE_SPECIAL.split(text) for token in vocabulary.encode(part)]
