"""Aligns two transcripts of the same audio and counts their edits: hits, substitutions, deletions, insertions.

As in the paper's code, the validator is the reference and the teacher the hypothesis: a deletion is a token that only
the validator has, an insertion a token that only the teacher has (docs/method.md). The rates (MER, PER, composite) are
computed from the counts, for many chunks at once, in `k2d.filtering.policy.metrics`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rapidfuzz.distance import Levenshtein

from k2d.schema import Counts, Distances
from k2d.text.phrases import match_phrases
from k2d.text.reading import read, read_many
from k2d.text.tokens import count_scripts
from k2d.text.trace import token_starts


def counts(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """Align two token sequences with the fewest edits and count hits and edits.

        counts(["今", "天", "meeting"], ["今", "天", "meetings"])  # Counts(hits=2, substitutions=1)

    Of several alignments with the fewest edits, rapidfuzz's is taken; it is always the same for the same sequences. The
    number of edits is the same when the sides are exchanged.
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
    """Compare the teacher's transcript of a chunk with the validator's transcripts, one for each perturbation.

        compare("今天 meeting", ["今天 meetings"]).mixed.rate  # 0.333…

    Counts are summed over the validator's transcripts. `validator_repetition` is the least over them, because a single
    transcript that does not loop is enough to compare with. Token counts are the teacher's.

    Raises:
        ValueError: there is no validator transcript.
    """
    if not validator_texts:
        raise ValueError("a comparison needs at least one validator transcript")
    readings = read_many([teacher_text, *validator_texts])
    teacher, transcripts = readings[0], [readings[place] for place in range(1, len(validator_texts) + 1)]
    zh_tokens, en_tokens = count_scripts(teacher.normalised)
    return Distances(
        mixed=sum((counts(transcript.written, teacher.written) for transcript in transcripts), Counts()),
        phonemes=sum((counts(transcript.sound, teacher.sound) for transcript in transcripts), Counts()),
        teacher_repetition=teacher.repetition,
        validator_repetition=min(transcript.repetition for transcript in transcripts),
        phrase=match_phrases(teacher.tokens),
        zh_tokens=zh_tokens,
        en_tokens=en_tokens,
    )


# ---- edits by place -----------------------------------------------------------------------------------------------


def counts_by_segment(segment_texts: Sequence[str], validator_text: str) -> tuple[Counts, ...]:
    """Align a chunk's mixed tokens with the validator's once, and return the counts of each of the chunk's segments.

    A deletion (a token that only the validator has) belongs to the segment of the teacher's token before it, or to the
    first segment. The counts add up to those of the whole chunk. Source: docs/method.md.

    Raises:
        ValueError: there is no segment.
    """
    split, owners = _owned(segment_texts)
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


def split_by_segment(segment_texts: Sequence[str], validator_text: str) -> tuple[str, ...]:
    """Cut the validator's text of a chunk where the teacher's segments end; one piece for each segment.

        split_by_segment([" 我們 use", " Kafka"], "我們 us kafka")  # ("我們 us", "kafka")

    Tokens are attributed as in `counts_by_segment`.

    Raises:
        ValueError: there is no segment.
    """
    split, owners = _owned(segment_texts)
    theirs, own = read(validator_text).tokens, tuple(token for tokens in split for token in tokens)
    ends = [0] * len(split)  # for each segment, the validator's tokens up to its end
    for op in Levenshtein.opcodes(theirs, own):
        for place in range(op.src_start, op.src_end):
            at = op.dest_start - 1 if op.tag == "delete" else op.dest_start + place - op.src_start
            ends[owners[max(0, at)] if owners else 0] = place + 1
    text, start = located(validator_text, theirs), 0
    pieces = []
    for end in ends:
        pieces.append(text.text_of(start, end).strip())
        start = max(start, end)
    return tuple(pieces)


def _owned(segment_texts: Sequence[str]) -> tuple[list[tuple[str, ...]], list[int]]:
    """The mixed tokens of each segment, and for each token of the chunk the index of its segment.

    Raises:
        ValueError: there is no segment.
    """
    if not segment_texts:
        raise ValueError("tokens can be attributed only if there is at least one segment")
    readings = read_many(segment_texts)
    split = [readings[place].tokens for place in range(len(segment_texts))]
    return split, [owner for owner, tokens in enumerate(split) for _ in tokens]


class DiffOp(StrEnum):
    """The kind of one step of an alignment."""

    EQUAL = "equal"
    SUBSTITUTE = "substitute"
    DELETE = "delete"  # only the validator has it
    INSERT = "insert"  # only the teacher has it


@dataclass(frozen=True, slots=True)
class Diff:
    """One step of an alignment: the normalised tokens of both sides, and the text as each side wrote it."""

    op: DiffOp
    teacher: tuple[str, ...]
    validator: tuple[str, ...]
    teacher_text: str
    validator_text: str


_OPS: Final = {"equal": DiffOp.EQUAL, "replace": DiffOp.SUBSTITUTE, "delete": DiffOp.DELETE, "insert": DiffOp.INSERT}


def aligned_diff(teacher_text: str, validator_text: str) -> tuple[Diff, ...]:
    """Align two transcripts for display. The edits are those of `counts` over mixed tokens.

        [diff.op for diff in aligned_diff("今天 Meeting", "今天 meetings")]  # [DiffOp.EQUAL, DiffOp.SUBSTITUTE]

    The texts of all steps, joined, are the original transcripts, including capitals, punctuation and Traditional
    characters; punctuation belongs to the token before it. Empty when neither side has a token.
    """
    teacher = read(teacher_text).tokens
    if teacher_text == validator_text:  # as of most chunks; finding tokens in the text takes longest
        return (Diff(DiffOp.EQUAL, teacher, teacher, teacher_text, validator_text),) if teacher else ()
    validator = read(validator_text).tokens
    teacher_tokens, validator_tokens = located(teacher_text, teacher), located(validator_text, validator)
    return tuple(
        Diff(
            op=_OPS[op.tag],
            teacher=teacher[op.dest_start : op.dest_end],
            validator=validator[op.src_start : op.src_end],
            teacher_text=teacher_tokens.text_of(op.dest_start, op.dest_end),
            validator_text=validator_tokens.text_of(op.src_start, op.src_end),
        )
        for op in Levenshtein.opcodes(validator, teacher)
    )


@dataclass(frozen=True, slots=True)
class LocatedTokens:
    """A text, the offset of each of its tokens, and its length. The first offset is 0, to include what precedes it."""

    text: str
    offsets: tuple[int, ...]

    def text_of(self, first: int, end: int) -> str:
        """The text of the tokens from `first` up to `end`."""
        return self.text[self.offsets[first] : self.offsets[end]] if end > first else ""


def located(text: str, tokens: Sequence[str]) -> LocatedTokens:
    """Find the tokens of a text (`k2d.text.reading`) in it."""
    starts = token_starts(text)
    if starts is None or len(starts) != len(tokens):  # rare: tokens cannot be located, so the normalised ones are shown
        text = " ".join(tokens)
        starts = [0]
        for token in tokens[:-1]:
            starts.append(starts[-1] + len(token) + 1)
    return LocatedTokens(text, (0, *starts[1:], len(text)))
