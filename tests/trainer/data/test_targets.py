"""A row's label as tokens: Whisper's own spelling, and nothing that could redirect the decoder."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.whisper.timestamps import read_window
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import DecoderTokens
from trainer.data.targets import SkipReason, tokenize_label
from trainer.options import Recipe

PLAIN = {"timestamp_probability": 0.0, "prompt_probability": 0.0}
STAMPED = {"timestamp_probability": 1.0, "prompt_probability": 0.0}
PROMPTED = {"timestamp_probability": 0.0, "prompt_probability": 1.0}


def row(*segments: tuple[float, float, str], **fields: Any) -> dict[str, Any]:
    parts = [{"start_s": start, "end_s": end, "text": text} for start, end, text in segments]
    return {
        "id": "rec_0-000000000-000005000",
        "segments": parts,
        "text": "".join(text for _, _, text in segments).strip(),
        "previous_text": "",
        "distance": 0.0,
        **fields,
    }


def label(vocabulary: Vocabulary, fields: dict[str, Any], *, visit: int = 0, **recipe: Any) -> DecoderTokens:
    found = tokenize_label(fields, vocabulary=vocabulary, recipe=Recipe(**recipe), visit=visit)
    assert isinstance(found, DecoderTokens)
    return found


def spell(tokens: tuple[int, ...], vocabulary: Vocabulary) -> str:
    """Tokens for people: text, and <…> for the rest."""
    names = {
        vocabulary.eot: "<end>",
        vocabulary.sot: "<start>",
        vocabulary.sot_lm: "<mixed>",
        vocabulary.languages["zh"]: "<zh>",
        vocabulary.transcribe: "<transcribe>",
        vocabulary.no_timestamps: "<no stamps>",
        vocabulary.sot_prev: "<previous>",
    }
    out = ""
    text: list[int] = []
    for token in (*tokens, -1):
        if 0 <= token < vocabulary.eot:
            text.append(token)
            continue
        out, text = out + vocabulary.decode(text), []
        if token >= vocabulary.timestamp_begin:
            out += f"<{(token - vocabulary.timestamp_begin) * 0.02:.2f}>"
        elif token >= 0:
            out += names[token]
    return out


TWO = ((0.0, 2.4, "我們用 Kafka"), (2.4, 5.0, " to stream logs."))


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        (TWO, "<0.00>我們用 Kafka<2.40><2.40> to stream logs.<5.00>"),
        # a gap
        (((0.0, 1.0, " yes"), (3.0, 4.0, " no")), "<0.00> yes<1.00><3.00> no<4.00>"),
        # off the 20 ms grid
        (((0.004, 1.233, " yes"), (1.233, 29.997, " no")), "<0.00> yes<1.24><1.24> no<30.00>"),
        # overlapping, and without length
        (((0.0, 2.0, " a"), (1.5, 1.5, " b"), (1.4, 3.0, " c")), "<0.00> a<2.00><2.00> b<2.02><2.02> c<3.00>"),
        # nothing said in the middle
        (((0.0, 1.0, " a"), (1.0, 2.0, "  "), (2.0, 3.0, " c")), "<0.00> a<1.00><2.00> c<3.00>"),
        # beyond the window
        (((0.0, 30.0, " a"), (30.0, 31.0, " b")), "<0.00> a<30.00><30.00> b<30.00>"),
    ],
)
def test_timestamps_stand_as_whisper_writes_them(
    vocabulary: Vocabulary, segments: tuple[tuple[float, float, str], ...], expected: str
) -> None:
    found = label(vocabulary, row(*segments), **STAMPED)
    assert spell(found.tokens, vocabulary) == f"<start><mixed><transcribe>{expected}<end>"
    assert found.prompt == 3


def test_what_is_written_is_what_the_engines_read(vocabulary: Vocabulary) -> None:
    tokens = label(vocabulary, row(*TWO), **STAMPED).tokens[3:-1]
    _, pieces, _ = read_window(tokens, vocabulary=vocabulary, samples=5 * 16000)
    assert [(piece.start_s, piece.end_s, piece.text) for piece in pieces] == list(TWO)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我們用 Kafka", "我們用 Kafka"),
        ("Kafka 我們", " Kafka 我們"),
        ("yes", " yes"),
        ("say <|zh|> now", " say <|zh|> now"),
        ("<|endoftext|>", " <|endoftext|>"),
        ("<|startofprev|><|0.00|> x", " <|startofprev|><|0.00|> x"),
    ],
)
def test_plain_text(vocabulary: Vocabulary, text: str, expected: str) -> None:
    found = label(vocabulary, row((0.0, 1.0, text)), **PLAIN)
    assert spell(found.tokens, vocabulary) == f"<start><mixed><transcribe><no stamps>{expected}<end>"
    assert found.prompt == 4


TRAPS = st.lists(st.sampled_from([*"<|>zh 好", "<|zh|>", "<|endoftext|>", "<|0.00|>"]), min_size=1).map("".join)


@given(text=TRAPS)
def test_no_text_becomes_a_special_token(vocabulary: Vocabulary, text: str) -> None:
    fields = row((0.0, 1.0, text), previous_text=text)
    for choice in (STAMPED, PROMPTED):
        found = tokenize_label(fields, vocabulary=vocabulary, recipe=Recipe(**choice), visit=0)
        if isinstance(found, SkipReason):
            assert not text.strip()
            continue
        said = found.tokens[found.prompt : -1]
        assert all(t < vocabulary.eot or (t >= vocabulary.timestamp_begin and choice is STAMPED) for t in said)
        prompt = found.tokens[: found.prompt - (3 if choice is STAMPED else 4)]
        assert all(token < vocabulary.eot for token in prompt[1:])
        assert text.strip() in vocabulary.decode(list(said))


def test_another_language(vocabulary: Vocabulary) -> None:
    tokens = label(vocabulary, row(*TWO), language="zh", **PLAIN).tokens
    assert spell(tokens, vocabulary).startswith("<start><zh><transcribe><no stamps>")


def test_previous_text_is_prompt_and_not_learned(vocabulary: Vocabulary) -> None:
    found = label(vocabulary, row(*TWO, previous_text="hello"), **PROMPTED)
    assert (
        spell(found.tokens, vocabulary)
        == "<previous> hello<start><mixed><transcribe><no stamps>我們用 Kafka to stream logs.<end>"
    )
    assert spell(found.tokens[: found.prompt], vocabulary).endswith("<no stamps>")


def test_only_the_end_of_a_long_previous_text_stays(vocabulary: Vocabulary) -> None:
    found = label(vocabulary, row(*TWO, previous_text="many words " * 300 + "the end"), **PROMPTED)
    assert found.prompt == 1 + 223 + 4
    assert " the end<start>" in spell(found.tokens, vocabulary)


def test_previous_text_gives_way_to_the_label(vocabulary: Vocabulary) -> None:
    fields = row((0.0, 5.0, " word" * 20), previous_text=" before" * 100)
    bare = len(label(vocabulary, fields, **PLAIN).tokens)
    for most in (bare, bare + 1, bare + 2, bare + 30):
        found = label(vocabulary, fields, max_tokens=most, **PROMPTED)
        assert len(found.tokens) == (bare if most < bare + 2 else most)
        assert found.tokens[found.prompt :] == label(vocabulary, fields, **PLAIN).tokens[4:]


def test_a_label_that_is_too_long_is_left_out_not_cut(vocabulary: Vocabulary) -> None:
    fields = row((0.0, 5.0, " word" * 20))
    length = len(label(vocabulary, fields, **PLAIN).tokens)
    recipe = Recipe(max_tokens=length - 1, **PLAIN)
    assert tokenize_label(fields, vocabulary=vocabulary, recipe=recipe, visit=0) is SkipReason.TOO_MANY_TOKENS
    assert not SkipReason.TOO_MANY_TOKENS.is_broken


@pytest.mark.parametrize("choice", [PLAIN, STAMPED])
@pytest.mark.parametrize("segments", [(), ((0.0, 1.0, ""),), ((0.0, 1.0, " \u3000"), (1.0, 2.0, ""))])
def test_nothing_said_is_nothing_to_learn(
    vocabulary: Vocabulary, choice: dict[str, float], segments: tuple[tuple[float, float, str], ...]
) -> None:
    found = tokenize_label(row(*segments), vocabulary=vocabulary, recipe=Recipe(**choice), visit=0)
    assert found is SkipReason.EMPTY
    assert found.is_broken


def test_choices_belong_to_row_visit_and_seed(vocabulary: Vocabulary) -> None:
    rows = [row(*TWO, id=f"row-{n}", previous_text="hello") for n in range(400)]

    def choices(visit: int, seed: int) -> list[tuple[bool, bool]]:
        labels = [label(vocabulary, one, visit=visit, seed=seed) for one in rows]
        return [(vocabulary.no_timestamps not in one.tokens, one.tokens[0] == vocabulary.sot_prev) for one in labels]

    first = choices(0, 0)
    assert choices(0, 0) == first
    assert len({tuple(first), tuple(choices(1, 0)), tuple(choices(0, 1))}) == 3
    # p = 0.5 and q = 0.2 of 400, independent: within four standard deviations
    assert 160 <= sum(stamped for stamped, _ in first) <= 240
    assert 48 <= sum(prompted for _, prompted in first) <= 112
    assert 16 <= sum(stamped and prompted for stamped, prompted in first) <= 64


@pytest.mark.parametrize(
    ("distance", "share", "weight"),
    [(0.3, 0.0, 1.0), (0.3, 1.0, 0.7), (0.3, 0.5, 0.85), (2.0, 0.5, 0.5), (0.0, 1.0, 1.0)],
)
def test_a_doubtful_row_weighs_less(vocabulary: Vocabulary, distance: float, share: float, weight: float) -> None:
    assert label(vocabulary, row(*TWO, distance=distance), distance_weight=share).weight == pytest.approx(weight)
