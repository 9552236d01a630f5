import pytest

from k2d.errors import BadRequest
from k2d.documents import BatchOptions
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
    "request_", [BatchOptions(language="zh"), BatchOptions(validator="a/b"), BatchOptions(vad=True)]
)
def test_options_are_part_of_the_identity(request_):
    assert make_batch([A], request_, SETTINGS).id != make_batch([A], BatchOptions(), SETTINGS).id


def test_a_name_is_not():
    assert make_batch([A], BatchOptions(name="x"), SETTINGS).id == make_batch([A], BatchOptions(), SETTINGS).id


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (BatchOptions(language="klingon"), "unknown language"),
        (BatchOptions(name="../etc"), "not a name"),
        (BatchOptions(name="a\nb"), "not a name"),
        (BatchOptions(teacher="no such model"), "unknown model"),
        (BatchOptions(teacher="/no/such/folder"), "no such folder"),
        (BatchOptions(teacher="packaged:other"), "unknown model"),
        (BatchOptions(validator="packaged:whisper-base"), "cannot doubt itself"),
    ],
)
def test_refuses_what_makes_no_sense(request_, said):
    with pytest.raises(BadRequest, match=said) as error:
        make_batch([A], request_, SETTINGS)
    assert error.value.hint


def test_an_empty_batch_is_refused():
    with pytest.raises(BadRequest, match="at least one"):
        make_batch([], BatchOptions(), SETTINGS)
