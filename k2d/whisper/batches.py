"""What every engine does with the windows of a batch, before and after its own decoding. Pure."""

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from k2d.schema import DecodeOptions, Window, WindowResult
from k2d.whisper import prompts
from k2d.whisper.fallback import DecodingResult
from k2d.whisper.languages import WindowLanguage
from k2d.whisper.timestamps import finish
from k2d.whisper.vocabulary import Vocabulary

_Key = TypeVar("_Key", bound=Hashable)


def alike(keys: Iterable[_Key]) -> dict[_Key, list[int]]:
    """The places of equal keys, so that windows which can be worked on together are.

    alike([3000, 750, 3000]) == {3000: [0, 2], 750: [1]}
    """
    places: dict[_Key, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return places


def starts_of(
    windows: Sequence[Window], languages: Sequence[WindowLanguage], *, options: DecodeOptions, vocabulary: Vocabulary
) -> list[tuple[int, ...]]:
    """The prompt of each window."""
    initial = prompts.initial_tokens(options, vocabulary=vocabulary)
    return [
        prompts.build(window, language=language.code, initial=initial, options=options, vocabulary=vocabulary)
        for window, language in zip(windows, languages, strict=True)
    ]


def results_of(
    windows: Sequence[Window],
    languages: Sequence[WindowLanguage],
    accepted: Sequence[tuple[DecodingResult, float]],
    *,
    vocabulary: Vocabulary,
) -> list[WindowResult]:
    """The result of each window, from the decoding that was accepted and its temperature."""
    return [
        finish(
            decoding,
            temperature=temperature,
            language=language.code,
            language_probs=language.probs,
            vocabulary=vocabulary,
            samples=len(window.samples),
        )
        for window, language, (decoding, temperature) in zip(windows, languages, accepted, strict=True)
    ]
