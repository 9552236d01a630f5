"""Error counts of one transcript against its reference, and their sums over a set. Pure.

All rates are sums of edits over sums of reference tokens, over normalised mixed tokens (`k2d.text`). An utterance
without speech has no reference tokens: each token of its transcript is an insertion.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Final

from rapidfuzz.distance import Levenshtein

from k2d.schema import Counts
from k2d.text.reading import read
from k2d.text.repetition import REPETITION_MAX
from k2d.text.tokens import code_mixing_index, count_scripts, han_tokens, is_han, is_latin, latin_tokens
from trainer.evaluation.boundaries import EN, ZH, languages, points_of_interest, switch_tokens, switches
from trainer.evaluation.word_errors import count_word_errors

# name → title in tables, in the order of tables
METRICS: Final = {
    "mer": "MER",
    "mer_speech": "MER, speech only",
    "zh_cer": "Mandarin CER",
    "en_wer": "English WER",
    "zh_cer_aligned": "Mandarin CER, aligned",
    "en_wer_aligned": "English WER, aligned",
    "switch": "switch-point error",
    "poi": "point-of-interest error",
}
# of the code-mixing index, which is at most 0.5; upper ends, inclusive
BUCKETS: Final = ((0.0, "0"), (0.1, "(0, 0.1]"), (0.25, "(0.1, 0.25]"), (0.5, "(0.25, 0.5]"))
NO_LANGUAGE: Final = "none"
_NO_COUNTS: Final = Counts()


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """The counts of one utterance: deletions are what the transcript lacks, insertions what only it has.

    Those of the whole text and of each script come from jiwer; those of parts of it from our own alignment.
    """

    mixed: Counts
    zh_filtered: Counts  # each script's tokens taken out first, then aligned: the paper's CER and WER
    en_filtered: Counts
    zh_aligned: Counts  # from the one mixed alignment
    en_aligned: Counts
    switch: Counts
    interest_zh: Counts  # if Mandarin is the embedded language
    interest_en: Counts  # if English is
    loops: int  # stretches of at most 30 s in which the text repeats itself
    has_text: bool  # the transcript has a token
    reference: int  # which of the references was the nearest

    @property
    def has_speech(self) -> bool:
        """Whether the reference has a token."""
        return self.mixed.reference_length > 0

    def of(self, metric: str, *, embedded: str = EN) -> Counts:
        """The counts behind one of `METRICS`."""
        if metric == "poi":
            return self.interest_en if embedded == EN else self.interest_zh
        if metric == "mer_speech":
            return self.mixed if self.has_speech else _NO_COUNTS
        name = {"mer": "mixed", "zh_cer": "zh_filtered", "en_wer": "en_filtered"}.get(metric)
        counts: Counts = getattr(self, name or metric.replace("_cer", "").replace("_wer", ""))
        return counts


def count_errors(references: Sequence[str], text: str, *, stretches: Sequence[str] | None = None) -> ErrorCounts:
    """Compare a model's transcript with the reference.

        count_errors(["我們 review 一下"], "我們 view 一下").mixed  # Counts(hits=4, substitutions=1)

    Args:
        references: ways to write the same speech (numbers in digits, numbers as spoken); the nearest one counts.
        text: the model's whole transcript.
        stretches: the same text in parts of at most 30 s, for the repetition count; None: it is one part.

    Raises:
        ValueError: there is no reference.
    """
    if not references:
        raise ValueError("a transcript cannot be scored without a reference")
    hypothesis = read(text).tokens
    written = [read(reference).tokens for reference in references]
    nearest = min(range(len(written)), key=lambda at: _distance(written[at], hypothesis))
    reference = written[nearest]
    spoken = languages(reference)
    # columns in the order of `Counts`, filled from one alignment
    zh, en, switch = [0] * 4, [0] * 4, [0] * 4
    interest = {ZH: [0] * 4, EN: [0] * 4}
    near_switches, gaps = switch_tokens(spoken), switches(spoken)
    points = {language: points_of_interest(spoken, language) for language in (ZH, EN)}
    for column, at, token in _alignment(reference, hypothesis):
        inserted = column == _INSERTION
        compared = token if inserted else reference[at]
        zh[column] += is_han(compared)
        en[column] += is_latin(compared)
        switch[column] += at in (gaps if inserted else near_switches)
        for language, places in points.items():
            interest[language][column] += at in places
    return ErrorCounts(
        mixed=count_word_errors(reference, hypothesis),
        zh_filtered=count_word_errors(han_tokens(reference), han_tokens(hypothesis)),
        en_filtered=count_word_errors(latin_tokens(reference), latin_tokens(hypothesis)),
        zh_aligned=Counts(*zh),
        en_aligned=Counts(*en),
        switch=Counts(*switch),
        interest_zh=Counts(*interest[ZH]),
        interest_en=Counts(*interest[EN]),
        loops=sum(read(part).repetition > REPETITION_MAX for part in stretches or (text,)),
        has_text=bool(hypothesis),
        reference=nearest,
    )


_HIT, _SUBSTITUTION, _DELETION, _INSERTION = range(4)  # in the order of `Counts`


def _alignment(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterable[tuple[int, int, str]]:
    """Every step of our alignment: its column in `Counts`, its place, the transcript's token ('' for a deletion).

    The place is the reference token's; an insertion's is that of the reference token it stands before.
    """
    for op in Levenshtein.opcodes(reference, hypothesis):
        if op.tag == "insert":
            for token in hypothesis[op.dest_start : op.dest_end]:
                yield _INSERTION, op.src_start, token
            continue
        column = {"equal": _HIT, "replace": _SUBSTITUTION, "delete": _DELETION}[op.tag]
        for offset, at in enumerate(range(op.src_start, op.src_end)):
            yield column, at, "" if op.tag == "delete" else hypothesis[op.dest_start + offset]


def _distance(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, int]:
    """Edits, then the reference's length: of two as near ones the shorter counts."""
    return Levenshtein.distance(reference, hypothesis), len(reference)


# ---- sets ---------------------------------------------------------------------------------------------------------


def pool(errors: Iterable[ErrorCounts], metric: str, *, embedded: str = EN) -> Counts:
    """Sum one metric's counts; their `rate` is the set's, where there are reference tokens."""
    return reduce(add, (each.of(metric, embedded=embedded) for each in errors), _NO_COUNTS)


def embedded_language(references: Iterable[str]) -> str:
    """The language of the fewer tokens over all sentences that have both; en when they are equal, or there are none.

    Decided once for a whole set, as PIER's authors do in their code.
    """
    zh = en = 0
    for text in references:
        spoken = languages(read(text).tokens)
        if ZH in spoken and EN in spoken:
            zh, en = zh + spoken.count(ZH), en + spoken.count(EN)
    return ZH if zh < en else EN


def bucket(reference: str) -> str | None:
    """The code-mixing bucket of a sentence, one of the names in `BUCKETS`; None when it has no token."""
    zh, en = count_scripts(read(reference).normalised)
    if not zh + en:
        return None
    index = code_mixing_index(zh, en)
    return next(name for limit, name in BUCKETS if index <= limit)


def language_of(reference: str) -> str:
    """A sentence's language by its scripts: zh, en, zh-en, or none when it has neither."""
    spoken = set(languages(read(reference).tokens))
    return "-".join(language for language in (ZH, EN) if language in spoken) or NO_LANGUAGE
