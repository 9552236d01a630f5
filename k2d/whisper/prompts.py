"""Builds a window's prompt (previous text, language, task), and checks windows and options before any decoding.

The initial prompt stands before *every* window, like faster-whisper's `hotwords` and openai/whisper with
`carry_initial_prompt`: a name may be said at any time, and without previous text, the default, a prompt before the
first window would be forgotten after 30 s. What room it leaves is for the previous text.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import structlog

from k2d.errors import BadRequest
from k2d.schema import MIXED, WINDOW_SAMPLES, DecodeOptions, Window
from k2d.text.terms import shorter_prompts, terms_of
from k2d.whisper.languages import check_language
from k2d.whisper.vocabulary import Vocabulary

CONTEXT: Final = 448  # tokens of Whisper's decoder
PREVIOUS_TEXT: Final = CONTEXT // 2 - 1  # maximum tokens of previous text: half of the context is for this window
MIXED_CODES: Final = ("zh", "en")
LEAST_TEMPERATURE: Final = 0.01  # logits divided by less overflow float32
ENGLISH: Final = "en"  # the language of English-only models
TASKS: Final = ("transcribe", "translate")
# What one window may cost, as all clients of a server share its engine. Chosen: several times what helps accuracy.
MAX_BEAMS: Final = 32
MAX_TEMPERATURES: Final = 10
MAX_PROMPT_TOKENS: Final = 8 * CONTEXT  # the model reads the last PREVIOUS_TEXT
MAX_PROMPT_CHARACTERS: Final = 100_000  # as of a batch's terms

log = structlog.get_logger()


def check(window: Window, options: DecodeOptions, *, vocabulary: Vocabulary) -> None:
    """Check that a window can be decoded with these options.

    Raises:
        BadRequest: an unknown language or task, or one that the model does not have; an option out of range, samples
            that are not int16 or longer than 30 s, a prompt token that is not in the vocabulary, an initial prompt with
            a special token.
    """
    check_options(options, languages=vocabulary.languages)
    if not vocabulary.is_multilingual and (options.language, options.task) != (ENGLISH, "transcribe"):
        raise BadRequest(
            f"an English-only Whisper cannot {options.task} {options.language!r}",
            hint="name a multilingual model, or transcribe with the language en",
        )
    if any(token >= vocabulary.eot for token in initial_tokens(options, vocabulary=vocabulary)):
        raise BadRequest("the initial prompt contains a special token", hint="leave out <|…|>")
    samples = window.samples
    if samples.ndim != 1 or samples.dtype.kind != "i" or samples.dtype.itemsize != 2:
        raise BadRequest(
            f"samples must be int16 of shape (n,), not {samples.dtype} of shape {samples.shape}",
            hint="decode to 16 kHz mono first",
        )
    if len(samples) > WINDOW_SAMPLES:
        raise BadRequest(f"a window has at most {WINDOW_SAMPLES} samples, not {len(samples)}", hint="cut it first")
    if len(window.prompt) > MAX_PROMPT_TOKENS:
        raise BadRequest(
            f"the previous text has {len(window.prompt)} tokens", hint=f"the model reads the last {PREVIOUS_TEXT}"
        )
    text, stamps = range(vocabulary.eot), range(vocabulary.timestamp_begin, vocabulary.size)
    bad = [token for token in window.prompt if token not in text and token not in stamps]
    if bad:
        raise BadRequest(f"prompt token {bad[0]} is not text", hint="give only text and timestamp tokens of this model")


def check_options(options: DecodeOptions, *, languages: Mapping[str, int]) -> None:
    """Check the options for a model with these languages.

    Raises:
        BadRequest: an unknown language or task, or an option out of range.
    """
    check_language(options.language, known=languages)
    if options.task not in TASKS:
        raise BadRequest(f"unknown task {options.task!r}", hint=f"tasks are: {', '.join(TASKS)}")
    if not options.temperatures or any(not 0.0 <= t <= 2.0 for t in options.temperatures):
        raise BadRequest(f"impossible temperatures {options.temperatures}", hint="give one or more from 0 to 2")
    if len(options.temperatures) > MAX_TEMPERATURES:
        raise BadRequest(f"{len(options.temperatures)} temperatures", hint=f"give at most {MAX_TEMPERATURES}")
    if not (1 <= options.beam_size <= MAX_BEAMS and 1 <= options.best_of <= MAX_BEAMS):
        raise BadRequest(f"beam_size and best_of lie from 1 to {MAX_BEAMS}", hint="1 decodes greedily")
    if options.max_new_tokens is not None and not 1 <= options.max_new_tokens <= CONTEXT:
        raise BadRequest(f"max_new_tokens lies from 1 to {CONTEXT}", hint="leave it out for what the context allows")
    if len(options.initial_prompt or "") > MAX_PROMPT_CHARACTERS:
        raise BadRequest(
            f"the initial prompt has {len(options.initial_prompt or '')} characters",
            hint=f"at most {MAX_PROMPT_CHARACTERS}; the model reads {PREVIOUS_TEXT} tokens",
        )
    if not 0.0 <= options.max_initial_timestamp_s <= 30.0:
        raise BadRequest("max_initial_timestamp_s lies from 0 to 30", hint="1.0 is Whisper's own value")
    if any(0.0 < t < LEAST_TEMPERATURE for t in options.temperatures):
        raise BadRequest(f"a temperature is 0 or at least {LEAST_TEMPERATURE}", hint="0 decodes without sampling")


def language_token(language: str, *, vocabulary: Vocabulary) -> int:
    """The token at the prompt's language position. The mixed prompt uses <|startoflm|>, which no other prompt uses."""
    return vocabulary.sot_lm if language == MIXED else vocabulary.languages[language]


def build(
    window: Window, *, language: str, initial: Sequence[int], options: DecodeOptions, vocabulary: Vocabulary
) -> tuple[int, ...]:
    """Build the prompt: `initial` tokens, the end of the previous text, start-of-transcript, language, task.

    An English-only model has neither language nor task in its prompt.
    """
    room = PREVIOUS_TEXT - min(len(initial), PREVIOUS_TEXT)
    previous = (*initial[:PREVIOUS_TEXT], *(window.prompt[-room:] if room else ()))
    task = vocabulary.transcribe if options.task == "transcribe" else vocabulary.translate
    start: tuple[int, ...] = (vocabulary.sot,)
    if vocabulary.is_multilingual:
        start = (vocabulary.sot, language_token(language, vocabulary=vocabulary), task)
    return (
        *((vocabulary.sot_prev, *previous) if previous else ()),
        *start,
        *((vocabulary.no_timestamps,) if options.without_timestamps else ()),
    )


def initial_tokens(options: DecodeOptions, *, vocabulary: Vocabulary) -> list[int]:
    """The tokens of `options.initial_prompt`, with a leading space: at most PREVIOUS_TEXT, cut before a comma."""
    text = (options.initial_prompt or "").strip()
    return list(_fitting_tokens(text, vocabulary)) if text else []


def fitting(prompt: str, *, vocabulary: Vocabulary) -> str:
    """The part of an initial prompt that the model reads: all of it, or as many terms as fit into PREVIOUS_TEXT tokens.

    A prompt whose first term is longer is returned whole; its tokens are cut.
    """
    prompt = prompt.strip()
    if len(_encoded(prompt, vocabulary)) <= PREVIOUS_TEXT:
        return prompt
    shorter = shorter_prompts(prompt)
    fit = bisect_right(shorter, PREVIOUS_TEXT, key=lambda part: len(_encoded(part, vocabulary)))
    return shorter[fit - 1] if fit else prompt


def _encoded(prompt: str, vocabulary: Vocabulary) -> list[int]:
    return vocabulary.encode(" " + prompt)


@lru_cache(maxsize=64)
def _fitting_tokens(prompt: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The tokens of the part that fits; logs once what does not."""
    part = fitting(prompt, vocabulary=vocabulary)
    tokens = _encoded(part, vocabulary)
    left_out = terms_of(prompt)[len(terms_of(part)) :]
    if left_out or len(tokens) > PREVIOUS_TEXT:
        log.warning(
            "initial prompt cut", tokens=PREVIOUS_TEXT, left_out=", ".join(left_out) or "the end of its first term"
        )
    return tuple(tokens[:PREVIOUS_TEXT])


def room(prompt: Sequence[int], options: DecodeOptions) -> int:
    """How many tokens may be generated after `prompt`: at most half of the context, as in training."""
    return min(CONTEXT // 2, CONTEXT - len(prompt), options.max_new_tokens or CONTEXT)
