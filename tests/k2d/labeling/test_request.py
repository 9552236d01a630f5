"""A batch is named by what was asked for; what makes no sense is refused at once."""

import pytest

from k2d.documents import BatchOptions
from k2d.errors import BadRequest
from k2d.labeling.request import make_batch
from k2d.schema import Source
from k2d.settings import Settings

SETTINGS = Settings(_env_file=None)
A, B = Source("a.wav", "lake://uploads/a", "key-a"), Source("b.wav", "lake://uploads/b", "key-b")


def test_same_files_and_options_give_the_same_batch_in_any_order():
    first = make_batch([A, B], BatchOptions(), SETTINGS)
    assert make_batch([B, A, A], BatchOptions(), SETTINGS).id == first.id
    assert len(first.sources) == 2
    assert first.name == first.id


@pytest.mark.parametrize(
    "options", [BatchOptions(language="zh"), BatchOptions(validator="a/b"), BatchOptions(vad=True)]
)
def test_options_are_part_of_the_identity(options):
    assert make_batch([A], options, SETTINGS).id != make_batch([A], BatchOptions(), SETTINGS).id


def test_a_name_is_not():
    assert make_batch([A], BatchOptions(name="x"), SETTINGS).id == make_batch([A], BatchOptions(), SETTINGS).id


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (BatchOptions(language="klingon"), "unknown language"),
        (BatchOptions(name="../etc"), "not a valid name"),
        (BatchOptions(name="a\nb"), "not a valid name"),
        (BatchOptions(teacher="no such model"), "unknown model"),
        (BatchOptions(teacher="/no/such/folder"), "no such folder"),
        (BatchOptions(teacher="packaged:other"), "unknown model"),
        (BatchOptions(validator="packaged:whisper-base"), "are the same model"),
    ],
)
def test_refuses_what_makes_no_sense(options, why):
    with pytest.raises(BadRequest, match=why) as error:
        make_batch([A], options, SETTINGS)
    assert error.value.hint


def test_an_empty_batch_is_refused():
    with pytest.raises(BadRequest, match="at least one"):
        make_batch([], BatchOptions(), SETTINGS)
