"""Terms of a batch: from a file or a text, as part of its identity, and what the teacher's prompt has no room for."""

from pathlib import Path

import pytest
from places import EXAMPLES
from weights import BASE, base, cache

from k2d.client import Embedded
from k2d.documents import BatchOptions
from k2d.errors import BadRequest
from k2d.labeling.request import make_batch
from k2d.labeling.terms import read_terms, terms_left_out
from k2d.schema import Reason, Source
from k2d.settings import Settings
from k2d.text.terms import parse_terms, terms_of, terms_prompt
from k2d.whisper import prompts
from k2d.whisper.vocabulary import Vocabulary

SETTINGS = Settings(_env_file=None)
SOURCE = Source("a.wav", "lake://uploads/a", "key-a")


@pytest.mark.parametrize("data", [b"NTU COOL\nloss\n", b"\xef\xbb\xbfNTU COOL\r\nloss", b"NTU COOL, loss"])
def test_a_file_of_terms(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "terms"
    file.write_bytes(data)
    assert parse_terms(read_terms(str(file))) == ("NTU COOL", "loss")


def test_a_text_of_terms() -> None:
    assert read_terms("NTU COOL, loss") == "NTU COOL, loss"
    assert read_terms("") == ""  # none, whatever K2D_TERMS says
    assert read_terms("a," * 3000) == "a," * 3000  # too long for a file name


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("empty.txt", b"", "has no terms"),
        ("mark.txt", b"\xef\xbb\xbf", "has no terms"),
        ("blank.txt", b"\r\n , \n", "no term"),
        ("big5.txt", "頻譜".encode("big5"), "not a text in UTF-8"),
        ("utf16.txt", "loss".encode("utf-16"), "not a text in UTF-8"),
        ("talk.flac", b"fLaC\x00\x00\x00\x22" + bytes(30), "control character"),
        ("special.txt", b"<|en|>", "special token"),
    ],
)
def test_what_is_no_file_of_terms_is_refused(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadRequest, match=why) as caught:
        read_terms(str(tmp_path / name))
    assert name in caught.value.message
    assert caught.value.hint


def test_a_name_without_a_file_is_not_taken_for_a_term(tmp_path: Path) -> None:
    for name in ("no-such/terms.txt", "TERMS.TXT", str(tmp_path)):
        with pytest.raises(BadRequest, match="no file with terms"):
            read_terms(name)


def test_terms_are_part_of_a_batchs_identity() -> None:
    none, some = (
        make_batch([SOURCE], BatchOptions(), SETTINGS),
        make_batch([SOURCE], BatchOptions(terms="loss"), SETTINGS),
    )
    assert none.options.decode.initial_prompt is None
    assert some.options.decode.initial_prompt == "這段錄音會提到：loss。"
    assert len({none.id, some.id, make_batch([SOURCE], BatchOptions(terms="Loss"), SETTINGS).id}) == 3
    assert make_batch([SOURCE], BatchOptions(terms=" loss\r\n"), SETTINGS).id == some.id


def test_settings_have_terms_and_a_request_overrides_them() -> None:
    settings = Settings(_env_file=None, terms="a, b")
    assert make_batch([SOURCE], BatchOptions(language="en"), settings).options.decode.initial_prompt == "a, b"
    assert (
        make_batch([SOURCE], BatchOptions(terms="c"), settings).options.decode.initial_prompt == "這段錄音會提到：c。"
    )
    assert make_batch([SOURCE], BatchOptions(terms=""), settings).options.decode.initial_prompt is None
    with pytest.raises(BadRequest, match="no term"):
        make_batch([SOURCE], BatchOptions(terms=" "), settings)


@pytest.mark.integration
@pytest.mark.parametrize("language", ["zh-en", "en"])
def test_what_does_not_fit_is_told_and_the_rest_is_whole_terms(language: str) -> None:
    vocabulary = Vocabulary(base().path / "tokenizer.json")
    settings = Settings(_env_file=None, teacher=BASE, cache=cache(), language=language)
    terms = [f"反向傳播 gradient {number}" for number in range(200)]
    left_out = terms_left_out(BatchOptions(terms="\n".join(terms)), settings)
    assert left_out
    kept = terms[: -len(left_out)]
    assert kept + left_out == terms
    prompt = terms_prompt(terms, language=language) or ""
    part = prompts.fitting(prompt, vocabulary=vocabulary)
    assert terms_of(part) == tuple(kept)
    one_more = terms_prompt([*kept, left_out[0]], language=language)
    assert len(vocabulary.encode(f" {part}")) <= 223 < len(vocabulary.encode(f" {one_more}"))
    assert terms_left_out(BatchOptions(terms="loss"), settings) == []
    assert terms_left_out(BatchOptions(), settings) == []


def test_left_out_is_unknown_where_the_vocabulary_is_elsewhere(tmp_path: Path) -> None:
    served = Settings(_env_file=None, teacher="http://127.0.0.1:9")
    assert terms_left_out(BatchOptions(terms="loss"), served) is None
    unfetched = Settings(_env_file=None, teacher="openai/whisper-tiny", cache=tmp_path, allow_downloads=False)
    assert terms_left_out(BatchOptions(terms="loss"), unfetched) is None
    assert terms_left_out(BatchOptions(), served) == []


@pytest.mark.integration
def test_the_teacher_writes_a_term_as_it_was_told(tmp_path: Path) -> None:
    """Without terms Whisper base writes "Gradient Design"."""
    base()
    settings = Settings(_env_file=None, store=str(tmp_path / "lake"), teacher=BASE, cache=cache())
    embedded, clip = Embedded(settings), str(EXAMPLES / "cs-clean-1.flac")
    many = ", ".join(["gradient descent", *(f"filler {number}" for number in range(200))])
    texts, keys = {}, set()
    for name, terms in (("plain", ""), ("told", "gradient descent"), ("many", many)):
        status = embedded.label([clip], BatchOptions(name=name, terms=terms))
        (row,) = embedded.chunks(name)
        texts[name] = row.teacher_text.lower()
        keys.add(row.id)
        assert row.reason != Reason.PROMPT_ECHO
        assert (status.terms[:1] == ["gradient descent"]) == (name != "plain")
        assert bool(status.terms_left_out) == (name == "many")
        assert (embedded.status(name).terms, embedded.status(name).terms_left_out) == (status.terms, None)
    assert len(keys) == 3
    assert "gradient descent" not in texts["plain"]
    assert "gradient descent" in texts["told"]
