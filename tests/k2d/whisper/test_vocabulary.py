"""The vocabulary: special tokens by name, what may not be generated, text that is always valid."""

import json
from pathlib import Path

import pytest
from weights import base

from k2d.errors import ModelError
from k2d.whisper.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(base().path / "tokenizer.json")


def test_what_may_not_be_generated_is_what_the_model_itself_lists(vocabulary: Vocabulary) -> None:
    config = json.loads((base().path / "config.json").read_text("utf-8"))
    assert set(vocabulary.suppressed) == set(config["suppress_ids"])
    assert set(vocabulary.suppressed_first) == set(config["suppress_ids_begin"])
    assert sorted(vocabulary.languages.values()) == sorted(config["lang_ids"])


def test_ids_are_those_of_multilingual_whisper(vocabulary: Vocabulary) -> None:
    assert (vocabulary.eot, vocabulary.sot, vocabulary.timestamp_begin) == (50257, 50258, 50364)
    assert vocabulary.size == 51865
    assert vocabulary.languages["zh"] == 50260


def test_text_survives_a_round_trip(vocabulary: Vocabulary) -> None:
    for text in ("今天這堂課我們 review 一下", " Hello, world", "𠮷野家 🙂", "a  b\n"):
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_the_first_merge_is_there_even_if_the_file_lacks_it(vocabulary: Vocabulary, tmp_path: Path) -> None:
    """The packaged tokenizer lacks `Ġ t`, so that " the" came out as two tokens."""
    assert len(vocabulary.encode(" In this chapter, the teacher takes time to test it.")) == 12
    document = json.loads((base().path / "tokenizer.json").read_text("utf-8"))
    merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in document["model"]["merges"]]
    whole = [["Ġ", "t"], *(pair for pair in merges if pair != ["Ġ", "t"])]
    for number, forms in enumerate((whole, whole[1:], [" ".join(pair) for pair in whole[1:]])):
        file = tmp_path / f"{number}.json"
        document["model"]["merges"] = forms
        file.write_text(json.dumps(document), "utf-8")
        assert Vocabulary(file).encode(" the time") == [264, 565]


def test_cut_characters_are_left_out_of_the_text(vocabulary: Vocabulary) -> None:
    tokens = vocabulary.encode("𠮷")
    assert len(tokens) > 1
    for cut in range(len(tokens)):
        assert vocabulary.decode(tokens[:cut]) == ""
    assert vocabulary.decode([*vocabulary.encode("好"), *tokens[:1], *vocabulary.encode("的")]) == "好的"


def test_special_and_timestamp_tokens_are_no_text(vocabulary: Vocabulary) -> None:
    tokens = [vocabulary.timestamp_begin, *vocabulary.encode("好"), vocabulary.timestamp_begin + 50, vocabulary.eot]
    assert vocabulary.decode(tokens) == "好"


def test_a_stray_language_token_never_reaches_the_next_prompt(vocabulary: Vocabulary) -> None:
    stamp, good = vocabulary.timestamp_begin, tuple(vocabulary.encode("好"))
    generated = (stamp, *good, vocabulary.languages["ar"], stamp + 50)
    assert vocabulary.without_specials(generated) == (stamp, *good, stamp + 50)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    whole = (base().path / "tokenizer.json").read_text("utf-8")
    document = json.loads(whole)
    document["added_tokens"] = [t for t in document["added_tokens"] if t["content"] != "<|startoflm|>"]
    for text in (whole[: len(whole) // 2], "{}", "[]", '{"model": {"type": "WordPiece"}}', json.dumps(document)):
        file.write_text(text, "utf-8")
        with pytest.raises(ModelError, match=r"tokenizer\.json"):
            Vocabulary(file)
    with pytest.raises(ModelError, match=r"missing\.json"):
        Vocabulary(tmp_path / "missing.json")
