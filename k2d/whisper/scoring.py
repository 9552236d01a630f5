"""What every engine's `score` shares: a given text as the tokens Whisper would have written, and what is refused.

A score is read without timestamps, and each token's probability is taken among text tokens alone: CTranslate2's one
teacher-forced pass (`align`) reports no other, and the transformers engine follows. So a text that stops early is not
charged for stopping; what it does say is. Text is scored as it is written: a model that writes Simplified characters
finds the same words in Traditional ones less likely.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from k2d.errors import BadRequest, ModelError
from k2d.schema import MIXED, DecodeOptions, TextScore, Window
from k2d.whisper import prompts
from k2d.whisper.fallback import DECIMALS
from k2d.whisper.vocabulary import Vocabulary

FLOOR = 2.0**-24  # float16's least step: what is less likely is 0 in that precision, so it counts as this in every one

# Kana and Han: what Whisper begins without a space
_UNSPACED = re.compile("[\u3005\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def read(
    windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions, *, vocabulary: Vocabulary
) -> list[tuple[int, ...]]:
    """Each text's tokens, refused before anything is computed.

    Raises:
        BadRequest: not a text for each window; a text that is no valid Unicode, spells a special token or is longer
            than the context leaves after its prompt; what `prompts.check` refuses.
    """
    if len(windows) != len(texts):
        raise BadRequest(f"{len(texts)} texts for {len(windows)} windows", hint="give one text for each window")
    for window in windows:
        prompts.check(window, options, vocabulary=vocabulary)
    found = [tokens(text, vocabulary=vocabulary) for text in texts]
    for window, spelled in zip(windows, found, strict=True):
        most = room(start(window, language=MIXED, options=options, vocabulary=vocabulary))
        if len(spelled) > most:
            raise BadRequest(
                f"the text has {len(spelled)} tokens; after its prompt the model's context has room for {most}",
                hint="score shorter pieces, or give less previous text",
            )
    return found


def tokens(text: str, *, vocabulary: Vocabulary) -> tuple[int, ...]:
    """A text's tokens as Whisper writes it: a space before the first word, none before Chinese or Japanese.

    Raises:
        BadRequest: the text is no valid Unicode or spells a special token.
    """
    text = text.strip()
    if not text:
        return ()
    letter = next((character for character in text if character.isalpha()), "")
    try:
        found = tuple(vocabulary.encode(text if _UNSPACED.match(letter) else f" {text}"))
    except (UnicodeError, TypeError) as error:  # half a surrogate pair
        raise BadRequest(f"the text is no valid Unicode: {error}", hint="send the text as UTF-8") from error
    if any(token >= vocabulary.eot for token in found):
        raise BadRequest("the text spells a special token", hint="leave out what stands in <|…|>")
    return found


def start(window: Window, *, language: str, options: DecodeOptions, vocabulary: Vocabulary) -> tuple[int, ...]:
    """What stands before the text: previous text as in `transcribe`, language, task, no timestamps."""
    initial = prompts.initial_tokens(options, vocabulary=vocabulary)
    without = replace(options, without_timestamps=True)
    return prompts.build(window, language=language, initial=initial, options=without, vocabulary=vocabulary)


def room(start: Sequence[int]) -> int:
    """How many tokens of text fit behind a start: end-of-text takes the last place (CTranslate2 reads it as well)."""
    return prompts.CONTEXT - len(start) - 1


def finish(spelled: tuple[int, ...], probabilities: Sequence[float]) -> TextScore:
    """A score from each token's probability; rounded as a label's signals are, never below `FLOOR`.

    Raises:
        ModelError: a probability is no number.
    """
    if any(math.isnan(probability) for probability in probabilities):
        raise ModelError("the model's probabilities are no numbers", hint="K2D_COMPUTE_TYPE: try another precision")
    logprobs = [math.log(min(max(probability, FLOOR), 1.0)) for probability in probabilities]
    return TextScore(
        tokens=spelled,
        logprobs=tuple(round(logprob, DECIMALS) for logprob in logprobs),
        avg_logprob=round(math.fsum(logprobs) / len(logprobs), DECIMALS) if logprobs else 0.0,
    )
