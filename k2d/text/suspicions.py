"""Signs of hallucination in a text alone: loops, known phrases, echoes, foreign scripts, implausible speech rates.

Needs no audio, no second model and no reference, takes microseconds, and works for Chinese, which has no spaces between
words. `bench/zh_hallu.py` measures `is_hallucination` (docs/zh-hallu.md); the thresholds below were chosen on the
benchmark's `dev` split.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Final

from k2d.text.echo import echo_share
from k2d.text.loops import Loop, count_up, find_loops, unloop
from k2d.text.normalise import HAN
from k2d.text.phrases import credit_at_edge, credit_line, match_phrases
from k2d.text.reading import read
from k2d.text.repetition import REPETITION_MAX, count_tokens
from k2d.text.tokens import count_scripts, is_han, is_latin

# Repeated tokens: ten Han characters, or five English words, are two seconds of speech. Cheers, drills and stammers
# stay below. Laughter, syllables of songs and digits (零零零零) are really repeated for long: they count half.
LOOP_WEIGHT_MAX: Final = 10.0
# Beside other speech, a sentence said three times is a dictation or a refrain; from four times on it is a loop.
TURNS_BESIDE_SPEECH: Final = 4
ALL_OF_IT: Final = 0.9  # a loop over this share of the text is not beside other speech
# Counting something (一下、兩下 …) reaches ten or twelve; Whisper counts on to the end of the window.
COUNTED_MAX: Final = 15
# In a loop without a fixed period few pairs of neighbouring tokens are new. Parallel clauses, tongue twisters and
# drills have a share of 0.4 or more; a text of under twenty tokens is too short to tell (在一起 four times has 0.27).
VARIETY_MIN: Final = 0.35
VARIETY_TOKENS: Final = 20
# With few different tokens (bits, yes and no) new pairs soon run out. Speech uses nearly all of the possible ones, a
# loop a part of them.
PAIRS_USED: Final = 0.8
# A text that ends inside a turn of a loop over all of it was cut by the decoder's limit of tokens: half the weight is
# enough. A unit this long, said three times to the end of a text, is no dictation and no refrain.
CUT_WEIGHT_MAX: Final = LOOP_WEIGHT_MAX / 2
LONG_UNIT: Final = 15  # tokens: two clauses
# An echo may lose or add a word; a speaker who repeats a sentence changes about a third of it.
ECHO_MAX: Final = 0.8
# A language lesson has a few words of another language, a title has a particle of it.
FOREIGN_MAX: Final = 0.5
FOREIGN_RUN_MAX: Final = 9  # letters: longer than a greeting
# The fastest possible speech: fast Mandarin has 7 to 8 syllables a second, fast English 4 to 5 words. Whisper's
# timestamps are off by a few tenths of a second, so shorter texts are not judged.
HAN_PER_S: Final = 10.0
WORDS_PER_S: Final = 6.5
CROWDED_TOKENS: Final = 8
# A syllable every three seconds for most of a window of 30 s: a text invented for silence or music, or wrong times.
# Either way the label does not describe the audio. In shorter spans people do pause (they look for a file).
SPARSE_MAX: Final = 0.03
SPARSE_S: Final = 20.0

_FOREIGN: Final = re.compile(f"[^\\sa-z0-9'.{HAN}-]")  # every foreign token has one of these
_FOREIGN_GAP: Final = 2  # tokens; chosen: Japanese is written with Han characters between kana
_SOUNDS: Final = frozenset(
    "哈呵嘿嘻啦噜哒嗒答嗯喔哦噢啊呀哇耶呜咚叮滴嘟砰叩咯哗汪喵咩呱零〇一二三四五六七八九两"
) | frozenset(("ha", "hah", "haha", "la", "na", "da", "oh", "ooh", "ah", "hey", "yeah", "beep", "bye"))


@dataclass(frozen=True, slots=True)
class Suspicions:
    """Measurements of one text. Shares are of its mixed tokens, 0 to 1."""

    tokens: int
    repetition: int  # the paper's count: occurrences of the most frequent character 6-gram
    loops: int  # most turns of any loop; 1 without a loop, 0 without a token
    looping_share: float  # share of the tokens that are repetitions within a loop
    # Weight of the repetitions in loops that are not plausible speech: 1 per Han character, 2 per English word, half of
    # that for laughter, song syllables and digits
    loop_weight: float
    counted: int  # turns of a loop in which only a number changes: 第一步，第二步 …
    token_repetition: int  # most frequent 6-gram of tokens, without loops; 0 where it is known to be within the limit
    variety: float  # share of the pairs of neighbouring tokens that are new; 1 where there is no pair
    phrase: str | None = None  # the known hallucination phrase the text consists of, or begins or ends with
    echo: float = 0.0  # share of the text that repeats its prompt
    foreign_share: float = 0.0  # share of the tokens in scripts or letters of neither Mandarin nor English
    foreign_run: int = 0  # letters of the longest run in another script
    duration_s: float | None = None
    tokens_per_s: float | None = None  # None without a duration
    crowding: float | None = None  # least time needed to say the text, over its duration; above 1 is impossible

    @property
    def reasons(self) -> tuple[str, ...]:
        """The signs that are each enough to call the text a hallucination; empty where there is none."""
        reasons = []
        if self.loop_turns:
            reasons.append("loop")
        if self.phrase is not None:
            reasons.append("phrase")
        if self.echo > ECHO_MAX:
            reasons.append("echo")
        if self.foreign_share > FOREIGN_MAX or self.foreign_run > FOREIGN_RUN_MAX:
            reasons.append("foreign")
        if self.tokens >= CROWDED_TOKENS and self.crowding is not None and self.crowding > 1.0:
            reasons.append("crowded")
        if self._is_sparse:
            reasons.append("sparse")
        return tuple(reasons)

    @property
    def loop_turns(self) -> int:
        """How often the text repeats itself, where that is more than speech does; else 0. Never 1 or 2.

        The largest of: turns of its loops, turns of a counting loop, occurrences of a token 6-gram, and the mean number
        of occurrences of a pair of neighbouring tokens.
        """
        return max(
            self.loops if self.loop_weight > LOOP_WEIGHT_MAX else 0,
            self.counted if self.counted > COUNTED_MAX else 0,
            self.token_repetition if self.token_repetition > REPETITION_MAX else 0,
            math.ceil(1 / self.variety) if self.tokens >= VARIETY_TOKENS and self.variety < VARIETY_MIN else 0,
        )

    @property
    def _is_sparse(self) -> bool:
        if self.duration_s is None or self.crowding is None or self.tokens == 0:
            return False
        return self.duration_s >= SPARSE_S and self.crowding < SPARSE_MAX


def suspicions(
    text: str,
    *,
    prompt: str = "",
    duration_s: float | None = None,
) -> Suspicions:
    """Measure the signs of hallucination in a text.

        suspicions("謝謝大家" * 5, duration_s=4.0).reasons  # ('loop', 'phrase')

    Args:
        prompt: the text the decoder was conditioned on (initial prompt, previous text).
        duration_s: length of the audio that the text is the transcript of.

    Any text is allowed; an empty one has no reasons.
    """
    reading = read(text)
    normalised, tokens = reading.normalised, reading.tokens
    has_foreign = _FOREIGN.search(normalised) is not None
    return replace(
        _loop_facts(tokens, reading.repetition, spaced=" " in normalised),
        phrase=match_phrases(tokens) or credit_line(text, tokens) or credit_at_edge(text, tokens),
        echo=echo_share(tokens, read(prompt).tokens) if prompt else 0.0,
        foreign_share=foreign_share(tokens) if has_foreign else 0.0,
        foreign_run=foreign_run(tokens) if has_foreign else 0,
        duration_s=duration_s,
        tokens_per_s=len(tokens) / duration_s if duration_s else None,
        crowding=_least_s(normalised) / duration_s if duration_s else None,
    )


def loop_turns(tokens: Sequence[str]) -> int:
    """`Suspicions.loop_turns` from mixed tokens alone: above 0 exactly when "loop" is a reason."""
    return _loop_facts(tokens, None).loop_turns


def _loop_facts(tokens: Sequence[str], repetition: int | None, *, spaced: bool = True) -> Suspicions:
    """The measurements about loops.

    A known character count (`repetition`) can save counting tokens, unless the text has spaces: the same tokens may be
    spaced differently (`count_tokens`).
    """
    loops = find_loops(tokens)
    is_rare = repetition is not None and repetition <= REPETITION_MAX and not spaced
    return Suspicions(
        tokens=len(tokens),
        repetition=repetition or 0,
        loops=max((loop.turns for loop in loops), default=min(1, len(tokens))),
        looping_share=sum(loop.surplus for loop in loops) / max(1, len(tokens)),
        loop_weight=sum(_loop_weight(tokens, loop) for loop in loops),
        counted=count_up(tokens),
        token_repetition=0 if is_rare else count_tokens(unloop(tokens)),
        variety=variety(tokens),
    )


def is_hallucination(text: str, *, prompt: str = "", duration_s: float | None = None) -> bool:
    """Whether `suspicions` finds any reason; the decision that docs/zh-hallu.md measures."""
    return bool(suspicions(text, prompt=prompt, duration_s=duration_s).reasons)


def variety(tokens: Sequence[str]) -> float:
    """Distinct pairs of neighbouring tokens over all such pairs; 1 without a pair.

    Also 1 where the text has most of the pairs that its tokens can form: few symbols in any order (1 0 0 1 1 0 …).
    """
    pairs, distinct, possible = len(tokens) - 1, len(set(pairwise(tokens))), len(set(tokens)) ** 2
    if pairs <= 0 or (possible > 1 and distinct >= PAIRS_USED * possible):
        return 1.0
    return distinct / pairs


def foreign_share(tokens: Sequence[str]) -> float:
    """Share of the tokens written in neither Mandarin nor English: kana, Hangul, Cyrillic, ğ, ü, ą …

    Bopomofo and Greek letters are not foreign: both occur in such texts.
    """
    return sum(map(_is_foreign, tokens)) / max(1, len(tokens))


def foreign_run(tokens: Sequence[str]) -> int:
    """Letters of the longest run in another script (not of foreign words in Latin letters).

    Up to two tokens at a time may interrupt a run, since Japanese is written with Han characters too.
    """
    longest = letters = gap = 0
    for token in tokens:
        if _is_foreign(token) and not is_latin(token):
            letters = (letters if gap <= _FOREIGN_GAP else 0) + len(token)
            longest, gap = max(longest, letters), 0
        else:
            gap += 1
    return longest


@lru_cache(maxsize=65536)
def _is_foreign(token: str) -> bool:
    if token.isascii() or is_han(token):
        return False
    return is_latin(token) or not all(map(_is_greek_or_bopomofo, token))


def _is_greek_or_bopomofo(letter: str) -> bool:
    return "\u0370" <= letter <= "\u03ff" or "\u3105" <= letter <= "\u312f" or "\u31a0" <= letter <= "\u31bf"


def _loop_weight(tokens: Sequence[str], loop: Loop) -> float:
    """The weight of the repetitions of a loop (see Suspicions); 0 where the loop may be speech."""
    at_end = loop.end == len(tokens)
    is_all = loop.end - loop.start >= ALL_OF_IT * len(tokens)
    if loop.turns < TURNS_BESIDE_SPEECH and not is_all and not (at_end and loop.period >= LONG_UNIT):
        return 0.0
    again = tokens[loop.start + loop.period : loop.end]
    weight = 2 * len(again) - sum(map(is_han, again))
    if all(token in _SOUNDS or token.isdecimal() for token in again):
        return weight / 2
    is_cut = at_end and is_all and loop.period * loop.turns < loop.end - loop.start
    return weight * LOOP_WEIGHT_MAX / CUT_WEIGHT_MAX if is_cut else weight


def _least_s(normalised: str) -> float:
    """The least time in which the Han and Latin tokens of a text can be said."""
    han, words = count_scripts(normalised)
    return han / HAN_PER_S + words / WORDS_PER_S
