"""What a text alone says against itself: loops, known phrases, echoes, foreign scripts, more words than time.

No audio, no second model and no reference: what is found here costs microseconds and holds for Chinese, where nothing
stands between words. `bench/zh_hallu.py` measures `is_hallucination` on texts written for it; each threshold below is
a sentence about speech, and the benchmark's `dev` split is where its number was read off.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from k2d.text.echo import echo_share
from k2d.text.loops import Loop, count_up, find_loops, unloop
from k2d.text.normalise import HAN, normalise
from k2d.text.phrases import credit_at_edge, credit_line, match_phrases
from k2d.text.repetition import REPETITION_MAX, count_ngrams, count_tokens
from k2d.text.tokens import count_scripts, is_han, is_latin, mixed_tokens, split_normalised

# Ten Han characters, or five English words, that say nothing new are two seconds of speech. Cheers, drills and stammers
# stay below. Laughter, syllables of songs and digits (零零零零) do come in long rows: they count half.
LOOP_WEIGHT_MAX = 10.0
# A sentence three times is a dictation or a refrain when something else is said too; from the fourth turn it is not.
TURNS_BESIDE_SPEECH = 4
ALL_OF_IT = 0.9
# Counting something (一下、兩下 …) reaches ten or twelve; Whisper counts on to the end of the window.
COUNTED_MAX = 15
# In a loop without a period few pairs of tokens are new. Parallel clauses, tongue twisters and drills keep 0.4 or more
# of theirs; a text of under twenty tokens is too short to tell (在一起 said four times has 0.27).
VARIETY_MIN = 0.35
VARIETY_TOKENS = 20
# An echo may lose or add a word; a speaker who takes a sentence up again changes a third of it.
ECHO_MAX = 0.8
# A language lesson says a word or two of the other language, a title has a particle of it.
FOREIGN_MAX = 0.5
FOREIGN_RUN_MAX = 9  # letters: longer than a greeting
# Nobody says more: fast Mandarin is 7 to 8 syllables a second, fast English 4 to 5 words. Whisper's timestamps err by a
# few tenths, so that a short text proves nothing.
HAN_PER_S = 10.0
WORDS_PER_S = 6.5
CROWDED_TOKENS = 8
# A syllable every three seconds, for ten seconds or more: the text was made up for a window of silence or music, or its
# timestamps are wrong. Either way the audio is not what the text says.
SPARSE_MAX = 0.03
SPARSE_S = 10.0

_FOREIGN = re.compile(f"[^\\sa-z0-9'.{HAN}-]")  # no foreign token without one of these
_FOREIGN_GAP = 2
_SOUNDS = frozenset("哈呵嘿嘻啦噜哒嗒答嗯喔哦噢啊呀哇耶呜咚叮滴嘟砰叩咯哗汪喵咩呱零〇一二三四五六七八九两") | frozenset(
    ("ha", "hah", "haha", "la", "na", "da", "oh", "ooh", "ah", "hey", "yeah", "beep", "bye")
)


@dataclass(frozen=True, slots=True)
class Suspicions:
    """Facts of one text. Shares are of its mixed tokens, 0 to 1."""

    tokens: int
    repetition: int  # the paper's: most frequent character 6-gram
    loops: int  # turns of the loop that turns most; 1 without a loop, 0 without a token
    looping_share: float  # tokens in loops that say nothing new, over tokens
    loop_weight: float  # weight of the loops that nobody says: Han characters, English words for two, sounds for half
    counted: int  # turns of a loop whose only news is a number: 第一步，第二步 …
    token_repetition: int  # the paper's count over tokens, without loops; 0 where it is known to be within the limit
    variety: float  # share of the pairs of neighbours that are not said before; 1 where there is no pair
    phrase: str | None = None  # the known hallucination the text consists of, or begins or ends with
    echo: float = 0.0  # share of the text that its prompt has already said
    foreign_share: float = 0.0  # tokens in scripts or letters that neither Mandarin nor English is written in
    foreign_run: int = 0  # letters of the longest stretch in another script
    duration_s: float | None = None
    tokens_per_s: float | None = None  # None without a duration
    crowding: float | None = None  # least time to say its Han and Latin tokens, over the time; above 1 nobody can

    @property
    def reasons(self) -> tuple[str, ...]:
        """What alone is enough to call the text a hallucination; empty for a text without fault."""
        found = []
        if self.loop_turns:
            found.append("loop")
        if self.phrase is not None:
            found.append("phrase")
        if self.echo > ECHO_MAX:
            found.append("echo")
        if self.foreign_share > FOREIGN_MAX or self.foreign_run > FOREIGN_RUN_MAX:
            found.append("foreign")
        if self.tokens >= CROWDED_TOKENS and self.crowding is not None and self.crowding > 1.0:
            found.append("crowded")
        if self._is_sparse:
            found.append("sparse")
        return tuple(found)

    @property
    def loop_turns(self) -> int:
        """How often the text says the same thing where that is more than speech does, else 0; never 1 or 2.

        The largest of: turns of its loops, of a loop that counts, of a run of six tokens that comes back, and how often
        a pair of neighbours is said on average.
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
    normalised: str | None = None,
    tokens: Sequence[str] | None = None,
) -> Suspicions:
    """Gather what a text says against itself.

    `prompt` is what the decoder was given before it (initial prompt, previous text), `duration_s` the length of the
    audio that the text stands for; `normalised` and `tokens` are the text's own, where the caller has them. Any text is
    allowed; an empty one has nothing against it.
    """
    normalised = normalise(text) if normalised is None else normalised
    tokens = split_normalised(normalised) if tokens is None else tokens
    has_foreign = _FOREIGN.search(normalised) is not None
    return replace(
        _loop_facts(tokens, count_ngrams(normalised), spaced=" " in normalised),
        phrase=match_phrases(tokens) or credit_line(text) or credit_at_edge(text, tokens),
        echo=echo_share(tokens, _prompt_tokens(prompt)) if prompt else 0.0,
        foreign_share=foreign_share(tokens) if has_foreign else 0.0,
        foreign_run=foreign_run(tokens) if has_foreign else 0,
        duration_s=duration_s,
        tokens_per_s=len(tokens) / duration_s if duration_s else None,
        crowding=_least_s(normalised) / duration_s if duration_s else None,
    )


def loop_turns(tokens: Sequence[str]) -> int:
    """`Suspicions.loop_turns` where there are only mixed tokens: more than 0 exactly when "loop" is a reason."""
    return _loop_facts(tokens, None).loop_turns


def _loop_facts(tokens: Sequence[str], repetition: int | None, *, spaced: bool = True) -> Suspicions:
    """What tokens say of loops, and nothing else. With the paper's count at hand the count of tokens can be skipped,
    unless the text has spaces: those split what is the same tokens (`count_tokens`)."""
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
    """Whether the text alone shows that nobody said it; the default decision, by the thresholds above."""
    return bool(suspicions(text, prompt=prompt, duration_s=duration_s).reasons)


def variety(tokens: Sequence[str]) -> float:
    """The share of the pairs of neighbouring tokens that were not there before; 1 without a pair."""
    pairs = len(tokens) - 1
    return len(set(pairwise(tokens))) / pairs if pairs > 0 else 1.0


def foreign_share(tokens: Sequence[str]) -> float:
    """The share of the tokens that neither Mandarin nor English has: kana, Hangul, Cyrillic, ğ, ü, ą …

    Bopomofo and Greek letters are at home in both.
    """
    return sum(map(_is_foreign, tokens)) / max(1, len(tokens))


def foreign_run(tokens: Sequence[str]) -> int:
    """Letters of the longest stretch of another script (not of foreign words in Latin letters).

    Up to two tokens at a time may interrupt it: Japanese is written with Han characters too.
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
    return is_latin(token) or not all(map(_is_at_home, token))


def _is_at_home(letter: str) -> bool:
    return "\u0370" <= letter <= "\u03ff" or "\u3105" <= letter <= "\u312f" or "\u31a0" <= letter <= "\u31bf"


def _loop_weight(tokens: Sequence[str], loop: Loop) -> float:
    """The weight of what a loop says again; 0 where it may well be speech."""
    if loop.turns < TURNS_BESIDE_SPEECH and loop.end - loop.start < ALL_OF_IT * len(tokens):
        return 0.0
    again = tokens[loop.start + loop.period : loop.end]
    weight = 2 * len(again) - sum(map(is_han, again))
    return weight / 2 if all(token in _SOUNDS or token.isdecimal() for token in again) else weight


def _least_s(normalised: str) -> float:
    han, words = count_scripts(normalised)
    return han / HAN_PER_S + words / WORDS_PER_S


@lru_cache(maxsize=64)
def _prompt_tokens(prompt: str) -> tuple[str, ...]:
    """Cached: a recording's initial prompt stands before each of its texts."""
    return tuple(mixed_tokens(prompt))
