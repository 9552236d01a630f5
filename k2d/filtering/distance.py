"""How far two transcripts of the same sound are apart. Pure: text in, counts and rates out.

The validator is the reference and the teacher the hypothesis, as in the paper's code: a deletion is a token that only
the validator has, an insertion one that only the teacher has. Source of the metrics: docs/method.md; rates of
many chunks are computed in `k2d.filtering.policy.metrics`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from rapidfuzz.distance import Levenshtein

from k2d.schema import Counts, Distances
from k2d.text.phrases import match_phrases
from k2d.text.reading import Reading, read_many
from k2d.text.tokens import count_scripts, mixed_tokens
from k2d.text.trace import token_starts


@lru_cache(maxsize=1024)
def read(text: str) -> Reading:
    """Normalise, split and read one transcript. Cached; many at once are read faster by `read_many`."""
    return read_many([text])[0]


def counts(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """Align two token sequences with the fewest edits and count them.

    Of several alignments with that many edits, the one is taken that rapidfuzz traces back; it is always the same for
    the same two sequences. The number of edits does not depend on which side is the reference.
    """
    if reference == hypothesis:
        return Counts(hits=len(reference))
    tags = [tag for tag, _, _ in Levenshtein.editops(reference, hypothesis).as_list()]
    substitutions, deletions = tags.count("replace"), tags.count("delete")
    return Counts(
        hits=len(reference) - substitutions - deletions,
        substitutions=substitutions,
        deletions=deletions,
        insertions=len(tags) - substitutions - deletions,
    )


def compare(teacher_text: str, validator_texts: Sequence[str]) -> Distances:
    """Compare a teacher's transcript of one chunk with what the validator heard in each perturbation of it.

    Counts are summed over the perturbations; `validator_repetition` is the least of them, since one perturbation that does not loop is
    evidence. Token counts are the teacher's.

    Raises:
        ValueError: there is no perturbation.
    """
    readings = read_many([teacher_text, *validator_texts])
    return distances(readings[0], [readings[place] for place in range(1, len(validator_texts) + 1)])


def distances(teacher: Reading, perturbations: Sequence[Reading]) -> Distances:
    """`compare` for texts that one `read_many` has read.

    Raises:
        ValueError: there is no perturbation.
    """
    if not perturbations:
        raise ValueError("a comparison needs at least one validator transcript")
    zh_tokens, en_tokens = count_scripts(teacher.normalised)
    return Distances(
        mixed=sum((counts(perturbation.written, teacher.written) for perturbation in perturbations), Counts()),
        phonemes=sum((counts(perturbation.sound, teacher.sound) for perturbation in perturbations), Counts()),
        teacher_repetition=teacher.repetition,
        validator_repetition=min(perturbation.repetition for perturbation in perturbations),
        phrase=match_phrases(teacher.tokens),
        zh_tokens=zh_tokens,
        en_tokens=en_tokens,
    )


# ---- where the edits are ------------------------------------------------------------------------------------------


def counts_by_segment(segment_texts: Sequence[str], validator_text: str) -> tuple[Counts, ...]:
    """Align the validator's mixed tokens with all of a chunk's segments at once and give each segment its own edits.

    A token that only the validator has belongs to the segment of the teacher's token before it (the first segment when
    there is none). The counts add up to those of the whole chunk. Source: docs/method.md.

    Raises:
        ValueError: there is no segment.
    """
    if not segment_texts:
        raise ValueError("edits cannot be attributed without a segment")
    split = [mixed_tokens(text) for text in segment_texts]
    owners = [owner for owner, tokens in enumerate(split) for _ in tokens]
    reference, hypothesis = read(validator_text).tokens, tuple(token for tokens in split for token in tokens)
    hits, substitutions = [len(tokens) for tokens in split], [0] * len(split)
    deletions, insertions = [0] * len(split), [0] * len(split)
    for op in Levenshtein.editops(reference, hypothesis):
        if op.tag == "delete":
            deletions[owners[op.dest_pos - 1] if op.dest_pos and owners else 0] += 1
            continue
        owner = owners[op.dest_pos]
        hits[owner] -= 1
        (substitutions if op.tag == "replace" else insertions)[owner] += 1
    return tuple(map(Counts, hits, substitutions, deletions, insertions))


class DiffOp(StrEnum):
    """What happened at one place of an alignment."""

    EQUAL = "equal"
    SUBSTITUTE = "substitute"
    DELETE = "delete"  # only the validator has it
    INSERT = "insert"  # only the teacher has it


@dataclass(frozen=True, slots=True)
class Diff:
    """A stretch of an alignment: normalised tokens of both sides, and the text as each side wrote it."""

    op: DiffOp
    teacher: tuple[str, ...]
    validator: tuple[str, ...]
    teacher_text: str
    validator_text: str


_OPS = {"equal": DiffOp.EQUAL, "replace": DiffOp.SUBSTITUTE, "delete": DiffOp.DELETE, "insert": DiffOp.INSERT}


def aligned_diff(teacher_text: str, validator_text: str) -> tuple[Diff, ...]:
    """Align two transcripts for a reader; the edits are those of `counts` over mixed tokens.

    The written texts of all stretches, joined, give each transcript back: capitals, punctuation and Traditional
    characters included. Punctuation goes with the token before it. Empty when neither side has a token.
    """
    teacher, validator = read(teacher_text).tokens, read(validator_text).tokens
    teacher_cuts, validator_cuts = _cuts(teacher_text, teacher), _cuts(validator_text, validator)
    return tuple(
        Diff(
            op=_OPS[op.tag],
            teacher=teacher[op.dest_start : op.dest_end],
            validator=validator[op.src_start : op.src_end],
            teacher_text=teacher_cuts.between(op.dest_start, op.dest_end),
            validator_text=validator_cuts.between(op.src_start, op.src_end),
        )
        for op in Levenshtein.opcodes(validator, teacher)
    )


@dataclass(frozen=True, slots=True)
class _Cuts:
    """A text and the offsets at which its tokens begin, plus its end. The first is 0, to take what precedes it."""

    text: str
    offsets: tuple[int, ...]

    def between(self, first: int, end: int) -> str:
        return self.text[self.offsets[first] : self.offsets[end]] if end > first else ""


def _cuts(text: str, tokens: Sequence[str]) -> _Cuts:
    starts = token_starts(text)
    if starts is None:  # the text cannot be traced (rare compositions): show the normalised tokens
        text = " ".join(tokens)
        starts = [0]
        for token in tokens[:-1]:
            starts.append(starts[-1] + len(token) + 1)
    return _Cuts(text, (0, *starts[1:], len(text)))
