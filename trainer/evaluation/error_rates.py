"""Error counts of one transcript against what was said, and their sums over a set. Pure.

All rates are sums of edits over sums of reference tokens, over normalised mixed tokens (`k2d.text`). An utterance in
which nothing is said has no reference tokens: each token heard there is an insertion.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from rapidfuzz.distance import Levenshtein

from k2d.filtering.distance import counts, read
from k2d.schema import Counts
from k2d.text.repetition import REPETITION_MAX, count_ngrams
from k2d.text.tokens import code_mixing_index, count_scripts, han_tokens, is_han, is_latin, latin_tokens
from trainer.evaluation.boundaries import EN, ZH, languages, points_of_interest, switch_tokens, switches

# name → what a table calls it, in the order of tables
METRICS = {
    "mer": "MER",
    "mer_speech": "MER, speech only",
    "zh_cer": "Mandarin CER",
    "en_wer": "English WER",
    "zh_cer_aligned": "Mandarin CER, aligned",
    "en_wer_aligned": "English WER, aligned",
    "switch": "switch-point error",
    "poi": "point-of-interest error",
}
BUCKETS = ((0.0, "0"), (0.1, "(0, 0.1]"), (0.25, "(0.1, 0.25]"), (0.5, "(0.25, 0.5]"))  # upper ends, inclusive
NONE = Counts()


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of one utterance. The hypothesis is the model's text; deletions are what it did not hear."""

    mixed: Counts
    zh_filtered: Counts  # each script's tokens taken out first, then aligned: the paper's CER and WER
    en_filtered: Counts
    zh_aligned: Counts  # from the one mixed alignment
    en_aligned: Counts
    switch: Counts
    interest_zh: Counts  # if Mandarin is the embedded language
    interest_en: Counts  # if English is
    loops: int  # stretches of at most 30 s in which the text repeats itself
    spoke: bool  # a token was heard

    @property
    def said(self) -> bool:
        """Whether there was anything to hear."""
        return self.mixed.reference_length > 0

    def of(self, metric: str, *, embedded: str = EN) -> Counts:
        """The counts behind one of `METRICS`."""
        if metric == "poi":
            return self.interest_en if embedded == EN else self.interest_zh
        if metric == "mer_speech":
            return self.mixed if self.said else NONE
        name = {"mer": "mixed", "zh_cer": "zh_filtered", "en_wer": "en_filtered"}.get(metric)
        found: Counts = getattr(self, name or metric.replace("_cer", "").replace("_wer", ""))
        return found


def score(references: Sequence[str], heard: str, *, stretches: Sequence[str] | None = None) -> Tally:
    """Compare what a model heard with what was said.

    Args:
        references: ways to write what was said (numbers in digits, numbers as spoken); the nearest one counts.
        heard: the model's whole text.
        stretches: the same text in parts of at most 30 s, for the repetition count; None: it is one part.

    Raises:
        ValueError: there is no reference.
    """
    if not references:
        raise ValueError("a transcript cannot be scored without a reference")
    hypothesis = read(heard).tokens
    reference = min((read(text).tokens for text in references), key=lambda tokens: _far(tokens, hypothesis))
    spoken = languages(reference)
    zh, en, switch = [0] * 4, [0] * 4, [0] * 4
    interest = {ZH: [0] * 4, EN: [0] * 4}
    near, gaps = switch_tokens(spoken), switches(spoken)
    points = {language: points_of_interest(spoken, language) for language in (ZH, EN)}
    for column, at, token in _alignment(reference, hypothesis):
        inserted = column == _INSERTION
        written = token if inserted else reference[at]
        zh[column] += is_han(written)
        en[column] += is_latin(written)
        switch[column] += at in (gaps if inserted else near)
        for language, places in points.items():
            interest[language][column] += at in places
    return Tally(
        mixed=counts(reference, hypothesis),
        zh_filtered=counts(han_tokens(reference), han_tokens(hypothesis)),
        en_filtered=counts(latin_tokens(reference), latin_tokens(hypothesis)),
        zh_aligned=Counts(*zh),
        en_aligned=Counts(*en),
        switch=Counts(*switch),
        interest_zh=Counts(*interest[ZH]),
        interest_en=Counts(*interest[EN]),
        loops=sum(count_ngrams(read(text).normalised) > REPETITION_MAX for text in stretches or (heard,)),
        spoke=bool(hypothesis),
    )


_HIT, _SUBSTITUTION, _DELETION, _INSERTION = range(4)  # in the order of `Counts`


def _alignment(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterable[tuple[int, int, str]]:
    """Every step of the alignment: its column in `Counts`, its place, the hypothesis' token ('' for a deletion).

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


def _far(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, int]:
    return Levenshtein.distance(reference, hypothesis), len(reference)


# ---- sets ---------------------------------------------------------------------------------------------------------


def pooled(tallies: Iterable[Tally], metric: str, *, embedded: str = EN) -> Counts:
    """All counts of one metric together; their `rate` is the set's, where there are reference tokens."""
    return reduce(add, (tally.of(metric, embedded=embedded) for tally in tallies), NONE)


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
    """What a sentence is in, by its scripts: zh, en, zh-en, or none when it has neither."""
    spoken = set(languages(read(reference).tokens))
    return "-".join(language for language in (ZH, EN) if language in spoken) or "none"
