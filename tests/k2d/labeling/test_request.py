"""A batch is named by what was asked for; what makes no sense is refused at once."""

import pytest

from k2d.documents import BatchOptions
from k2d.errors import BadRequest, ModelRefused
from k2d.labeling.request import check_choice, make_batch, split_channels
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


def test_channels_of_a_file_are_together_and_in_their_order():
    """Also of files with the same name, and of channels with two digits: chunks are listed in this order."""
    files = [Source("talk.wav", f"lake://uploads/{name}", f"key-{name}") for name in "ba"]
    options = BatchOptions(channels="each")
    parts = split_channels([*files, A], options, SETTINGS, channels_of=lambda source: 1 if source is A else 11)
    batch = make_batch(parts, options, SETTINGS)
    channels = [(f"lake://uploads/{name}", channel) for name in "ab" for channel in range(1, 12)]
    assert [(source.uri, source.channel) for source in batch.sources] == [(A.uri, None), *channels]
    assert make_batch(parts[::-1], options, SETTINGS).id == batch.id


def test_an_empty_batch_is_refused():
    with pytest.raises(BadRequest, match="at least one"):
        make_batch([], BatchOptions(), SETTINGS)


LISTED = Settings(allowed_models=("openai/whisper-base", "/models/student", "sherpa:/models/sense"), _env_file=None)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"teacher": "packaged:whisper-base"},
        {"teacher": "local:packaged:whisper-base"},
        {"validator": "perturbed"},
        {"validator": "perturbed+second-decode"},
        {"validator": "perturbed+packaged:whisper-tiny.en"},
        {"validator": "perturbed+probe:0123456789ab"},
    ],
)
def test_clients_may_choose_what_is_configured_or_packaged(options):
    check_choice(BatchOptions(**options), SETTINGS)


def test_clients_may_choose_what_the_operator_lists():
    for options in (
        {"teacher": "openai/whisper-base", "validator": "/models/student"},
        {"validator": "sherpa:/models/sense"},
        {"teacher": "packaged:whisper-base"},  # configured
    ):
        check_choice(BatchOptions(**options), LISTED)
    configured = Settings(teacher="/models/own", validator="a/b+second-decode", _env_file=None)
    check_choice(BatchOptions(teacher="/models/own", validator="a/b"), configured)


REFUSED = [
    "openai/whisper-large-v2",
    "/",
    "/models/student/../other",
    "/models/student/",
    "./data",
    "../x",
    "~root",
    "local:/etc",
]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("settings", [SETTINGS, LISTED])
@pytest.mark.parametrize("field", ["teacher", "validator"])
def test_clients_may_choose_no_folder_and_no_download(name, settings, field, monkeypatch):
    def no_look(*_):
        raise AssertionError("a client's name of a folder was looked up")

    monkeypatch.setattr("pathlib.Path.is_dir", no_look)
    with pytest.raises(ModelRefused, match="may not choose") as error:
        check_choice(BatchOptions(**{field: name}), settings)
    assert "K2D_ALLOWED_MODELS" in error.value.hint


@pytest.mark.parametrize("name", ["perturbed+sherpa:/etc", "perturbed+sherpa:x://y", "sherpa:.", "perturbed+a/b.en"])
def test_clients_may_choose_no_validator_in_a_folder(name):
    with pytest.raises(ModelRefused):
        check_choice(BatchOptions(validator=name), SETTINGS)


@pytest.mark.parametrize("name", ["none such", "data", "packaged:other"])
def test_a_name_that_is_no_model_is_a_bad_request_whether_or_not_there_is_such_a_folder(name, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRequest, match="unknown model"):
        check_choice(BatchOptions(teacher=name), SETTINGS)
