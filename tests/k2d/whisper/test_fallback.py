"""When a window is decoded again, and which draft wins; what a temperature stands for without dice."""

from collections.abc import Sequence

import pytest

from k2d.schema import DecodeOptions
from k2d.whisper.deterministic_fallback import DeterministicFallback, Search, repeats_ngram, search_at
from k2d.whisper.fallback import DecodingResult, decode_with_fallback, is_silence, needs_fallback

OPTIONS = DecodeOptions()


def draft(
    logprob: float = -0.3, silence: float = 0.1, ratio: float = 1.2, tokens: Sequence[int] = (1, 2)
) -> DecodingResult:
    return DecodingResult(tuple(tokens), logprob, silence, ratio)


TABLE = [
    # draft, options, decode again?, silence?
    ("sure and plain", draft(), OPTIONS, False, False),
    ("repetitive", draft(ratio=2.5), OPTIONS, True, False),
    ("at the ratio threshold", draft(ratio=2.4), OPTIONS, False, False),
    ("unsure", draft(logprob=-1.1), OPTIONS, True, False),
    ("unsure, but silence", draft(logprob=-1.1, silence=0.7), OPTIONS, False, True),
    ("repetitive, unsure, but silence", draft(logprob=-1.1, silence=0.7, ratio=9), OPTIONS, False, True),
    ("sure of its loop, though it hears no speech", draft(logprob=-0.1, silence=0.7, ratio=9), OPTIONS, True, False),
    ("nothing is ever silence", draft(logprob=-1.1, silence=0.9), DecodeOptions(no_speech_threshold=None), True, False),
    ("nothing is ever unsure", draft(logprob=-9), DecodeOptions(log_prob_threshold=None), False, False),
    ("no one to overrule silence", draft(silence=0.9), DecodeOptions(log_prob_threshold=None), False, True),
    ("loops are welcome", draft(ratio=9), DecodeOptions(compression_ratio_threshold=None), False, False),
]


@pytest.mark.parametrize(("found", "options", "again", "silent"), [r[1:] for r in TABLE], ids=[r[0] for r in TABLE])
def test_when_a_draft_is_decoded_again(
    found: DecodingResult, options: DecodeOptions, again: bool, silent: bool
) -> None:
    assert needs_fallback(found, options) is again
    assert is_silence(found, options) is silent


def test_only_failures_are_decoded_again_and_all_of_a_round_together() -> None:
    rounds: list[tuple[list[int], float]] = []
    quality = {0: 0.0, 1: 0.4, 2: 0.2, 3: 9.9}  # the temperature from which a window is fine

    def decode(indices: Sequence[int], temperature: float) -> list[DecodingResult]:
        rounds.append((list(indices), temperature))
        return [draft(logprob=-0.5 if temperature >= quality[i] else -2.0 - i - temperature) for i in indices]

    options = DecodeOptions(temperatures=(0.0, 0.2, 0.4))
    accepted = decode_with_fallback(4, options=options, decode=decode)
    assert rounds == [([0, 1, 2, 3], 0.0), ([1, 2, 3], 0.2), ([1, 3], 0.4)]
    assert [temperature for _, temperature in accepted] == [0.0, 0.4, 0.2, 0.4]
    assert accepted[3][0].avg_logprob == -5.0  # the least bad, and it carries the last temperature


def test_of_failures_those_that_do_not_loop_go_first() -> None:
    tries = iter([draft(logprob=-0.1, ratio=9), draft(logprob=-1.5), draft(logprob=-1.2)])
    options = DecodeOptions(temperatures=(0.0, 0.2, 0.4))
    [(best, temperature)] = decode_with_fallback(1, options=options, decode=lambda *_: [next(tries)])
    assert (best.avg_logprob, temperature) == (-1.2, 0.4)


def test_a_temperature_stands_for_a_search() -> None:
    found = [search_at(t, DecodeOptions(beam_size=2, best_of=5)) for t in OPTIONS.temperatures]
    assert found == [Search(2, 0), Search(5, 0), Search(5, 9), Search(5, 7), Search(5, 6), Search(5, 4)]


def test_a_rung_that_would_change_nothing_is_not_climbed() -> None:
    calls: list[tuple[list[int], Search]] = []
    loop, plain = [1, 2, 3, 4, 5, 6] * 3, list(range(30))

    def search(indices: Sequence[int], how: Search) -> list[DecodingResult]:
        calls.append((list(indices), how))
        return [draft(tokens=loop if i == 0 else plain) for i in indices]

    ladder = DeterministicFallback(OPTIONS, search=search)
    for temperature in OPTIONS.temperatures:
        ladder.decode([0, 1], temperature)
    assert [indices for indices, _ in calls] == [[0, 1], [0, 1], [0], [0], [0], [0]]


def test_repeats() -> None:
    assert repeats_ngram([1, 2, 3, 1, 2, 3], 3)
    assert not repeats_ngram([1, 2, 3, 1, 2], 3)
    assert not repeats_ngram([1], 3)
