"""A label and its hypotheses above one another: the edits of `counts`, and nothing of any text is lost."""

from hypothesis import example, given
from hypothesis import strategies as st

from k2d.filtering.distance import DiffOp, counts
from k2d.filtering.interlinear import interlinear
from k2d.text.reading import read

texts = st.text(alphabet="今天我們review the,， 25", max_size=20)


def test_tokens_stand_above_one_another_and_gaps_hold_the_rest() -> None:
    columns = interlinear("今天 meeting 好", ["今天 的 meeting 好", "天 meeting 很好"])
    assert [column.text.strip() for column in columns] == ["今", "天", "", "meeting", "", "好"]
    assert [column.token for column in columns] == [0, 1, None, 2, None, 3]
    first = [(cell.op, cell.text) if cell else None for cell in (column.cells[0] for column in columns)]
    assert first[2:4] == [(DiffOp.DELETE, "的"), (DiffOp.EQUAL, "meeting")]
    second = [(cell.op, cell.text) if cell else None for cell in (column.cells[1] for column in columns)]
    assert second == [
        (DiffOp.INSERT, ""),
        (DiffOp.EQUAL, "天"),
        None,
        (DiffOp.EQUAL, "meeting"),
        (DiffOp.DELETE, "很"),
        (DiffOp.EQUAL, "好"),
    ]


@given(texts, st.lists(texts, max_size=3))
@example("", ["好"])
@example("好", [""])
def test_the_edits_are_those_of_the_distance(label: str, hypotheses: list[str]) -> None:
    columns = interlinear(label, hypotheses)
    tokens = read(label).tokens
    assert [column.token for column in columns if column.token is not None] == list(range(len(tokens)))
    for number, hypothesis in enumerate(hypotheses):
        cells = [column.cells[number] for column in columns]
        edits = counts(read(hypothesis).tokens, tokens)
        ops = [cell.op for cell in cells if cell is not None]
        assert ops.count(DiffOp.EQUAL) == edits.hits
        assert ops.count(DiffOp.SUBSTITUTE) == edits.substitutions
        assert ops.count(DiffOp.INSERT) == edits.insertions
        more = " ".join(cell.text for cell in cells if cell is not None and cell.op is DiffOp.DELETE)
        assert len(read(more).tokens) <= edits.deletions
