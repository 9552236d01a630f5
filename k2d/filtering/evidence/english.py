"""What of a label and a hypothesis an English-only model can judge: their English tokens.

Such a model writes English whatever it gets, so what it makes of Mandarin speech means nothing. Its hypothesis is
aligned with the whole label by sound; then Mandarin tokens of the label are left out, and so are tokens of the
hypothesis that are aligned with them, or that lie in a gap beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from k2d.text.characters import LATIN_KIND, Kinds
from k2d.text.reading import Readings, read_many
from k2d.text.sounds import FIRST_PHONE

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


def english_tokens(readings: Readings) -> Flags:
    """Which tokens are English words: in Latin script and read in English, so not numbers; shape (tokens,)."""
    lengths = np.diff(readings.phoneme_starts)
    codes = np.frombuffer((readings.sound + "\0").encode("utf-32-le"), np.uint32)
    words: Flags = (readings.kinds == LATIN_KIND) & (codes[readings.phoneme_starts[:-1]] >= FIRST_PHONE) & (lengths > 0)
    return words


@dataclass(frozen=True, slots=True)
class EnglishShare:
    """How much of a text is in English."""

    some: bool  # it has an English word
    throughout: bool  # and nothing in another script; numbers count as English then


def english_share(text: str) -> EnglishShare:
    """How much of a text is in English.

    english_share("明天 deadline")  # EnglishShare(some=True, throughout=False)
    """
    readings = read_many([text])
    tokens = slice(*readings.token_ranges[0])
    judged = judged_tokens(english_tokens(readings)[tokens], readings.kinds[tokens])
    return EnglishShare(some=bool(judged.any()), throughout=bool(judged.any() and judged.all()))


def judged_tokens(words: Flags, kinds: Kinds) -> Flags:
    """Which tokens of a text an English-only model can judge; all of shape (tokens of the text,).

    Its English words; where the text is in Latin script throughout, its numbers too. None where it has no English word.

    Args:
        words: which tokens are English words.
        kinds: the script of each (k2d.text.characters).
    """
    latin: Flags = kinds == LATIN_KIND
    return latin if words.any() and latin.all() else words


def opposite_tokens(label_sounds: Sequence[str], judged: Flags, hypothesis_sounds: Sequence[str]) -> Flags:
    """Which tokens of a hypothesis stand opposite to the label's judged tokens; shape (tokens of the hypothesis,).

    A token belongs where most of its phonemes are aligned. One that is aligned with nothing counts if its neighbours in
    the label are judged tokens (or there is none on one side).

    Args:
        label_sounds: phonemes of each token of the label (k2d.text.sounds).
        judged: shape (tokens of the label,).
        hypothesis_sounds: phonemes of each token of the hypothesis.
    """
    if judged.all():
        return np.ones(len(hypothesis_sounds), np.bool_)
    of_label = np.repeat(judged, [len(sound) for sound in label_sounds])
    owner = np.repeat(np.arange(len(hypothesis_sounds)), [len(sound) for sound in hypothesis_sounds])
    votes = np.zeros(len(hypothesis_sounds))
    in_gap = np.zeros(len(hypothesis_sounds), np.bool_)  # opposite to judged tokens only, if aligned with nothing
    for code in Levenshtein.opcodes("".join(hypothesis_sounds), "".join(label_sounds)):
        tokens = owner[code.src_start : code.src_end]
        if code.tag in ("equal", "replace"):
            np.add.at(votes, tokens, np.where(of_label[code.dest_start : code.dest_end], 1.0, -1.0))
        elif code.tag == "delete":
            beside = of_label[max(0, code.dest_start - 1) : code.dest_start + 1]
            in_gap[tokens] = bool(len(beside) and beside.all())
    opposite: Flags = (votes > 0) | ((votes == 0) & in_gap)
    return opposite
