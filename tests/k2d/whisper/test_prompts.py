"""What stands before a window's tokens, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from weights import base

from k2d.errors import BadRequest
from k2d.schema import WINDOW_SAMPLES, DecodeOptions, Window
from k2d.whisper import prompts
from k2d.whisper.vocabulary import Vocabulary

SECOND = np.zeros(16_000, np.int16)
OPTIONS = DecodeOptions()


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(base().path / "tokenizer.json")


def build(vocabulary: Vocabulary, window: Window, options: DecodeOptions = OPTIONS) -> tuple[int, ...]:
    initial = prompts.initial_tokens(options, vocabulary=vocabulary)
    return prompts.build(window, language="zh", initial=initial, options=options, vocabulary=vocabulary)


def test_a_bare_prompt_is_start_language_task(vocabulary: Vocabulary) -> None:
    v = vocabulary
    assert build(v, Window(SECOND)) == (v.sot, v.languages["zh"], v.transcribe)
    options = DecodeOptions(task="translate", without_timestamps=True)
    assert build(v, Window(SECOND), options) == (v.sot, v.languages["zh"], v.translate, v.no_timestamps)


def test_the_mixed_prompt_uses_a_row_of_its_own(vocabulary: Vocabulary) -> None:
    assert prompts.language_token("zh-en", vocabulary=vocabulary) == vocabulary.sot_lm
    assert vocabulary.sot_lm not in vocabulary.languages.values()


def test_terms_come_first_and_the_oldest_text_gives_way(vocabulary: Vocabulary) -> None:
    options = DecodeOptions(initial_prompt=" gradient descent ")
    terms = vocabulary.encode(" gradient descent")
    previous = tuple(range(300))
    built = build(vocabulary, Window(SECOND, previous), options)
    assert built[0] == vocabulary.sot_prev
    assert list(built[1 : 1 + len(terms)]) == terms
    assert built[1 + len(terms) : -3] == previous[-(223 - len(terms)) :]
    assert len(built) == 1 + 223 + 3


def test_a_long_list_is_cut_between_terms(vocabulary: Vocabulary) -> None:
    terms = [f"gradient descent {number}" for number in range(100)]
    tokens = prompts.initial_tokens(DecodeOptions(initial_prompt=", ".join(terms)), vocabulary=vocabulary)
    text = vocabulary.decode(tokens)
    kept = text.strip().split(", ")
    assert kept == terms[: len(kept)]
    assert len(tokens) <= 223 < len(vocabulary.encode(f"{text}, {terms[len(kept)]}"))
    whole = vocabulary.encode(" gradient descent")
    assert prompts.initial_tokens(DecodeOptions(initial_prompt="gradient descent"), vocabulary=vocabulary) == whole


def test_special_tokens_in_an_initial_prompt_are_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(BadRequest, match="special token"):
        prompts.check(Window(SECOND), DecodeOptions(initial_prompt="a <|en|> b"), vocabulary=vocabulary)


def test_terms_never_crowd_out_the_window(vocabulary: Vocabulary) -> None:
    built = build(vocabulary, Window(SECOND, (1, 2, 3)), DecodeOptions(initial_prompt="term " * 500))
    assert len(built) == 1 + 223 + 3
    assert prompts.room(built, OPTIONS) == 448 - len(built)


def test_room_is_half_the_context_at_most() -> None:
    assert prompts.room([0] * 3, OPTIONS) == 224
    assert prompts.room([0] * 3, DecodeOptions(max_new_tokens=7)) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"language": "tlh"}, "language"),
        ({"language": ""}, "language"),
        ({"task": "summarise"}, "task"),
        ({"temperatures": ()}, "temperatures"),
        ({"temperatures": (-0.1,)}, "temperatures"),
        ({"beam_size": 0}, "beam_size"),
        ({"best_of": 0}, "best_of"),
        ({"beam_size": 3000}, "beam_size"),
        ({"best_of": 33}, "best_of"),
        ({"temperatures": (0.0,) * 11}, "temperatures"),
        ({"max_new_tokens": 449}, "max_new_tokens"),
        ({"initial_prompt": "x" * 100_001}, "initial prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_initial_timestamp_s": 31.0}, "max_initial_timestamp_s"),
    ],
)
def test_impossible_options_are_refused(vocabulary: Vocabulary, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        prompts.check(Window(SECOND), replace(OPTIONS, **change), vocabulary=vocabulary)
    assert caught.value.hint


@pytest.mark.parametrize(
    "window",
    [
        Window(np.zeros(WINDOW_SAMPLES + 1, np.int16)),
        Window(np.zeros(16_000, np.float32)),  # type: ignore[arg-type]
        Window(np.zeros((1, 16_000), np.int16)),
        Window(SECOND, (50258,)),  # a special token could end or redirect the prompt
        Window(SECOND, (-1,)),
        Window(SECOND, (10**6,)),
        Window(SECOND, (0,) * 4000),  # longer than any model reads
    ],
)
def test_impossible_windows_are_refused(vocabulary: Vocabulary, window: Window) -> None:
    with pytest.raises(BadRequest):
        prompts.check(window, OPTIONS, vocabulary=vocabulary)


def test_text_and_timestamps_are_accepted(vocabulary: Vocabulary) -> None:
    prompts.check(Window(SECOND, (0, vocabulary.timestamp_begin + 5)), OPTIONS, vocabulary=vocabulary)
