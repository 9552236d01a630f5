"""Pure: a training row's label as the tokens that teacher and student are fed with, or why it has none."""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from k2d.errors import BadRequest
from k2d.schema import WINDOW_S
from k2d.whisper import scoring
from k2d.whisper.features import TOKEN_S
from k2d.whisper.prompts import PREVIOUS_TEXT, language_token
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import Example
from trainer.data.draws import generator
from trainer.options import Recipe

LAST_STAMP = round(WINDOW_S / TOKEN_S)  # 30.00

_INSIDE_SPECIAL = re.compile(r"(?<=<)(?=\|)")  # between < and | of <|…|>


class Skip(StrEnum):
    """Why a row is not trained on."""

    EMPTY = "no text"
    TOO_MANY_TOKENS = "more tokens than max_tokens"
    DAMAGED = "damaged audio"
    TOO_LONG = "audio of more than 30 s"
    HELD_OUT = "held out for validation"

    @property
    def bad(self) -> bool:
        """Whether it says that the dataset is broken, not that the recipe left the row out."""
        return self in (Skip.EMPTY, Skip.DAMAGED, Skip.TOO_LONG)


def example(fields: Mapping[str, Any], *, vocabulary: Vocabulary, recipe: Recipe, visit: int) -> Example | Skip:
    """A row (fields of `k2d.datasets.rows.SCHEMA`; no audio needed) as tokens, or why there are none.

    Timestamps are kept with the recipe's probability, previous text is put before with its own; both are drawn anew
    for each visit. What does not fit is cut from the front of the previous text; a label is never cut.
    """
    draws = generator("label", recipe.seed, visit, fields["id"])
    stamped, prompted = draws.random(2) < (recipe.timestamp_probability, recipe.prompt_probability)
    segments = [segment for segment in fields["segments"] or () if segment["text"].strip()]
    if stamped and segments:
        text = _with_timestamps(segments, vocabulary=vocabulary)
    else:
        stamped = False
        text = _written(fields["text"], vocabulary=vocabulary)
    if not any(token < vocabulary.eot for token in text):
        return Skip.EMPTY
    start = [vocabulary.sot, language_token(recipe.language, vocabulary=vocabulary), vocabulary.transcribe]
    if not stamped:
        start.append(vocabulary.no_timestamps)
    room = recipe.max_tokens - len(start) - len(text) - 1
    if room < 0:
        return Skip.TOO_MANY_TOKENS
    if prompted and fields["previous_text"]:
        start = [*_previous(fields["previous_text"], room=room, vocabulary=vocabulary), *start]
    return Example(
        tokens=(*start, *text, vocabulary.eot),
        prompt=len(start),
        weight=1.0 - recipe.distance_weight * min(fields["distance"], 1.0),
    )


def _with_timestamps(segments: Sequence[Mapping[str, Any]], *, vocabulary: Vocabulary) -> list[int]:
    """<|0.00|> text<|2.40|><|2.40|> text<|5.00|>: never backwards, no segment without length."""
    tokens: list[int] = []
    step = 0
    for segment in segments:
        begin = max(step, min(round(segment["start_s"] / TOKEN_S), LAST_STAMP - 1))
        step = max(begin + 1, min(round(segment["end_s"] / TOKEN_S), LAST_STAMP))
        step = min(step, LAST_STAMP)
        tokens += [
            vocabulary.timestamp_begin + begin,
            *_plain(segment["text"], vocabulary=vocabulary),
            vocabulary.timestamp_begin + step,
        ]
    return tokens


def _previous(text: str, *, room: int, vocabulary: Vocabulary) -> list[int]:
    """<|startofprev|> and the end of the previous text; nothing where not even one token of it fits."""
    tokens = _written(text, vocabulary=vocabulary)
    fits = min(room - 1, PREVIOUS_TEXT)
    return [vocabulary.sot_prev, *tokens[-fits:]] if tokens and fits > 0 else []


def _written(text: str, *, vocabulary: Vocabulary) -> list[int]:
    """A text as Whisper begins it, with a space or without."""
    try:
        return list(scoring.tokens(text, vocabulary=vocabulary))
    except BadRequest:  # it spells a special token
        first, *rest = _INSIDE_SPECIAL.split(text.strip())
        begun = scoring.tokens(first, vocabulary=vocabulary)
        return [*begun, *(token for part in rest for token in vocabulary.encode(part))]


def _plain(text: str, *, vocabulary: Vocabulary) -> list[int]:
    """A text's tokens with its own leading space; <|zh|> in it stays five characters of text."""
    tokens = vocabulary.encode(text)
    if all(token < vocabulary.eot for token in tokens):
        return tokens
    return [token for part in _INSIDE_SPECIAL.split(text) for token in vocabulary.encode(part)]
