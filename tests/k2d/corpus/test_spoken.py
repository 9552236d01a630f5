"""Tokens of a label with times: in order, within their segments, and none lost."""

from hypothesis import given
from hypothesis import strategies as st
from lakes import segment

from k2d.corpus.spoken import spoken_tokens
from k2d.text.reading import read

texts = st.text(alphabet="今天我們 review,，25", max_size=12)


def test_a_token_begins_where_its_phonemes_do() -> None:
    segments = (segment(1.0, 3.0, " 今天 meeting"), segment(3.5, 5.0, " 很好"))
    tokens = spoken_tokens("今天 meeting 很好", segments)
    assert [token.text.strip() for token in tokens] == ["今", "天", "meeting", "很", "好"]
    assert [token.segment for token in tokens] == [0, 0, 0, 1, 1]
    assert [token.start_s for token in tokens] == [1.0, 1.444, 1.889, 3.5, 4.25]  # 2 + 2 + 5 phonemes; 2 + 2
    assert tokens[2].phonemes == ("M", "IY", "T", "IH", "NG")


@given(st.lists(texts, min_size=1, max_size=4))
def test_no_token_is_lost_and_times_ascend_within_segments(parts: list[str]) -> None:
    segments = [segment(2.0 * n, 2.0 * n + 1.5, f" {part}") for n, part in enumerate(parts)]
    text = "".join(one.text for one in segments).strip()
    tokens = spoken_tokens(text, segments)
    assert len(tokens) == len(read(text).tokens)
    assert [token.segment for token in tokens] == sorted(token.segment for token in tokens)
    times = [token.start_s for token in tokens]
    assert times == sorted(times)
    for token in tokens:
        assert segments[token.segment].start_s <= token.start_s <= segments[token.segment].end_s
