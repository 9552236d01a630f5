"""What the engines' `score` share: tokenizing a given text as Whisper would write it, and checking it.

There are no timestamps, and a token's probability is normalised over text tokens only: CTranslate2's teacher-forced
pass (`align`) reports no other, and the transformers engine does the same. So a text that ends early has no cost for
ending early. Text is scored as written: a model that writes Simplified characters gives the same words in Traditional
characters a lower probability.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from k2d.errors import BadRequest, ModelError
from k2d.schema import MIXED, DecodeOptions, TextScore, Window
from k2d.whisper import prompts
from k2d.whisper.fallback import DECIMALS
from k2d.whisper.vocabulary import Vocabulary

FLOOR: Final = 2.0**-24  # the least positive float16: smaller probabilities count as this, in every precision

# Kana and Han: Whisper writes no space before them
_UNSPACED: Final = re.compile("[\u3005\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def read(
    windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions, *, vocabulary: Vocabulary
) -> list[tuple[int, ...]]:
    """Tokenize and check the text of each window; runs no model.

    Raises:
        BadRequest: there is not one text for each window; a text is not valid Unicode, contains a special token, or
            does not fit into the context after its prompt; or as `prompts.check`.
    """
    if len(windows) != len(texts):
        raise BadRequest(f"{len(texts)} texts for {len(windows)} windows", hint="give one text for each window")
    for window in windows:
        prompts.check(window, options, vocabulary=vocabulary)
    tokens_of_texts = [tokens(text, vocabulary=vocabulary) for text in texts]
    for window, text_tokens in zip(windows, tokens_of_texts, strict=True):
        limit = room(start(window, language=MIXED, options=options, vocabulary=vocabulary))
        if len(text_tokens) > limit:
            raise BadRequest(
                f"the text has {len(text_tokens)} tokens; after its prompt the model's context has room for {limit}",
                hint="score shorter pieces, or give less previous text",
            )
    return tokens_of_texts


def tokens(text: str, *, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Tokenize a text as Whisper writes it: with a leading space, except before Chinese or Japanese.

    Raises:
        BadRequest: the text is not valid Unicode, or contains a special token.
    """
    text = text.strip()
    if not text:
        return ()
    letter = next((character for character in text if character.isalpha()), "")
    try:
        text_tokens = tuple(vocabulary.encode(text if _UNSPACED.match(letter) else f" {text}"))
    except (UnicodeError, TypeError) as error:  # half a surrogate pair
        raise BadRequest(f"the text is not valid Unicode: {error}", hint="send the text as UTF-8") from error
    if any(token >= vocabulary.eot for token in text_tokens):
        raise BadRequest("the text contains a special token", hint="leave out <|…|>")
    return text_tokens


def start(window: Window, *, language: str, options: DecodeOptions, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The prompt before the text: previous text as in `transcribe`, language, task, no timestamps."""
    initial = prompts.initial_tokens(options, vocabulary=vocabulary)
    without = replace(options, without_timestamps=True)
    return prompts.build(window, language=language, initial=initial, options=without, vocabulary=vocabulary)


def room(start: Sequence[int]) -> int:
    """How many text tokens fit behind the prompt `start`; end-of-text takes the last position."""
    return prompts.CONTEXT - len(start) - 1


def finish(text_tokens: tuple[int, ...], probabilities: Sequence[float]) -> TextScore:
    """The score from each token's probability, at least `FLOOR`; rounded as a label's signals are.

    Raises:
        ModelError: a probability is NaN.
    """
    if any(math.isnan(probability) for probability in probabilities):
        raise ModelError("the model's probabilities are NaN", hint="try another precision: K2D_COMPUTE_TYPE")
    logprobs = [math.log(min(max(probability, FLOOR), 1.0)) for probability in probabilities]
    return TextScore(
        tokens=text_tokens,
        logprobs=tuple(round(logprob, DECIMALS) for logprob in logprobs),
        avg_logprob=round(math.fsum(logprobs) / len(logprobs), DECIMALS) if logprobs else 0.0,
    )
