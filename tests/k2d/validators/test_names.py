"""Names of validators: which may stand where, and what a batch makes of them."""

import pytest

from k2d.documents import BatchOptions
from k2d.errors import BadRequest
from k2d.labeling.request import make_batch
from k2d.schema import Source
from k2d.settings import load
from k2d.validators import address_of, models_of, served, validators_of

SOURCES = [Source("a.wav", "file:///a.wav", "k")]
PROBE = "probe:0123456789abcdef"


@pytest.mark.parametrize(
    ("validator", "validators", "models"),
    [
        ("perturbed", ("perturbed",), ()),
        ("a/small", ("a/small",), ("a/small",)),
        ("a/small + perturbed+second-decode", ("a/small", "perturbed", "second-decode"), ("a/small",)),
        (f"perturbed+{PROBE}+a/tiny", ("perturbed", PROBE, "a/tiny"), ("a/tiny",)),
        ("perturbed+rescue", ("perturbed", "second-decode"), ()),  # as version 0.1 called it
        ("http://a:1,http://b:1+perturbed", ("http://a:1,http://b:1", "perturbed"), ("http://a:1,http://b:1",)),
    ],
)
def test_validators_are_joined_by_a_plus(validator: str, validators: tuple[str, ...], models: tuple[str, ...]) -> None:
    assert validators_of(validator) == validators
    assert models_of(validator) == models


@pytest.mark.parametrize(
    ("validator", "why"),
    [
        ("", "empty entry"),
        ("perturbed+", "empty entry"),
        ("perturbed++second-decode", "empty entry"),
        ("perturbed+perturbed", "names a validator twice"),
        ("second-decode", "only decodes what the others leave"),
        ("second-decode+perturbed", "only decodes what the others leave"),
        (PROBE, "writes no text"),
        ("perturbed+probe:", "not the digest"),
        ("perturbed+probe:Kafka", "not the digest"),
        ("http://a:1+http://b:1", "servers of two models"),
    ],
)
def test_what_names_no_validators_is_refused(validator: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as error:
        validators_of(validator)
    assert error.value.hint


def test_a_server_has_the_one_model_that_is_named() -> None:
    assert served("a/small+perturbed+second-decode") == "a/small"
    assert served("perturbed+second-decode") == "perturbed"  # which every server refuses
    with pytest.raises(BadRequest, match="loads one model"):
        served("a/small+a/tiny")


@pytest.mark.parametrize("reference", ["a/b", "packaged:whisper-base", "/models/c++/tiny"])
def test_what_names_no_server_is_left_as_it_is(reference: str) -> None:
    assert address_of(reference) == reference


def test_a_batch_says_whose_servers_validate_not_where() -> None:
    settings = load(teacher="http://teacher:8000", validator="http://validator:8000+perturbed+second-decode")
    batch = make_batch(SOURCES, BatchOptions(), settings)
    assert (batch.teacher, batch.validator) == ("served:teacher", "served:validator+perturbed+second-decode")
    only = make_batch(SOURCES, BatchOptions(validator="http://validator:8000"), settings)
    assert only.validator == "served:validator"
    assert only.id != batch.id
    with pytest.raises(BadRequest, match="not an inference server of this installation"):
        make_batch(SOURCES, BatchOptions(validator="perturbed+http://elsewhere:1"), settings)
    with pytest.raises(BadRequest, match="teacher and validator are the same model"):
        make_batch(SOURCES, BatchOptions(validator="perturbed+http://teacher:8000"), settings)


def test_every_model_is_checked() -> None:
    with pytest.raises(BadRequest, match="unknown model"):
        make_batch(SOURCES, BatchOptions(validator="perturbed+no such model"), load())
    with pytest.raises(BadRequest, match="teacher and validator are the same model"):
        make_batch(SOURCES, BatchOptions(validator="perturbed+packaged:whisper-base"), load())
    with pytest.raises(BadRequest, match="names a validator twice"):
        make_batch(SOURCES, BatchOptions(validator="a/tiny+local:a/tiny"), load())
