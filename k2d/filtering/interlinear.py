"""A label and its hypotheses above one another, token by token, for display."""

from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from k2d.filtering.distance import DiffOp, LocatedTokens, located
from k2d.text.reading import read


@dataclass(frozen=True, slots=True)
class Cell:
    """What one hypothesis has at a place of the label. `text` is as written; empty where it has nothing."""

    op: DiffOp  # EQUAL, SUBSTITUTE, INSERT (only the label has it), DELETE (only the hypothesis has it)
    text: str


@dataclass(frozen=True, slots=True)
class Column:
    """One token of the label, or a gap in which hypotheses have more."""

    text: str  # of the label, as written, with what follows it; empty: a gap
    token: int | None  # its number among the label's tokens; None: a gap
    cells: tuple[Cell | None, ...]  # one for each hypothesis; None in a gap where it has nothing


def interlinear(label: str, hypotheses: Sequence[str]) -> tuple[Column, ...]:
    """Align each hypothesis with a label, and return the columns of all of them in the order of the label.

        [column.text for column in interlinear("今天 meeting", ["今天 的 meetings"])]  # ["今", "天 ", "", "meeting"]

    The edits are those of `k2d.filtering.distance.counts`. A hypothesis's tokens between two of the label's are one
    cell of a gap. Where a hypothesis has the same number of tokens instead of others, they are aligned one to one.
    """
    tokens = read(label).tokens
    places = located(label, tokens)
    aligned = [_aligned(tokens, hypothesis) for hypothesis in hypotheses]
    columns: list[Column] = []
    for number in range(len(tokens) + 1):
        gap = tuple(Cell(DiffOp.DELETE, more[number]) if number in more else None for _, more in aligned)
        if any(cell is not None for cell in gap):
            columns.append(Column("", None, gap))
        if number < len(tokens):
            cells = tuple(cells[number] for cells, _ in aligned)
            columns.append(Column(places.text_of(number, number + 1), number, cells))
    return tuple(columns)


def _aligned(tokens: Sequence[str], hypothesis: str) -> tuple[dict[int, Cell], dict[int, str]]:
    """The cell of each token of the label, and what the hypothesis has in the gap before a token, by its number."""
    own = read(hypothesis).tokens
    texts: LocatedTokens = located(hypothesis, own)
    cells: dict[int, Cell] = {}
    more: dict[int, str] = {}
    for op in Levenshtein.opcodes(own, tokens):
        if op.tag == "delete":
            more[op.dest_start] = texts.text_of(op.src_start, op.src_end).strip()
            continue
        for offset, number in enumerate(range(op.dest_start, op.dest_end)):
            if op.tag == "insert":
                cells[number] = Cell(DiffOp.INSERT, "")
            else:
                source = op.src_start + offset
                kind = DiffOp.EQUAL if op.tag == "equal" else DiffOp.SUBSTITUTE
                cells[number] = Cell(kind, texts.text_of(source, source + 1).strip())
    return cells, more
