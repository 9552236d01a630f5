"""Addresses of inference servers, and who may name them."""

import pytest

from k2d.documents import BatchOptions
from k2d.errors import BadRequest
from k2d.inference.address import is_address, plain, split
from k2d.labeling.request import make_batch
from k2d.schema import Source
from k2d.settings import load

SOURCES = [Source("a.wav", "file:///a.wav", "k")]


@pytest.mark.parametrize(
    ("reference", "servers"),
    [
        ("http://127.0.0.1:8001", ["http://127.0.0.1:8001"]),
        ("https://asr.example/", ["https://asr.example"]),
        ("http://a:1, http://b:1,", ["http://a:1", "http://b:1"]),
        ("grpc://triton:8001/teacher", ["grpc://triton:8001/teacher"]),
        ("grpc://[::1]:8001/teacher,grpcs://b:1/teacher", ["grpc://[::1]:8001/teacher", "grpcs://b:1/teacher"]),
    ],
)
def test_an_address_names_its_servers(reference: str, servers: list[str]) -> None:
    assert is_address(reference)
    assert split(reference) == servers


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("ftp://a:1", "not an address"),
        ("http://", "not an address"),
        ("http://a:port", "not an address"),
        ("grpc://a:8001", "does not name a model"),
        ("grpc://a:8001/x/y", "does not name a model"),
        ("http://a:1/v1", "has no path"),
        ("http://user:secret@a:1", "host, port and path only"),
        ("http://a:1,grpc://b:1/teacher", "two kinds"),
        ("http://a:1,http://a:1/", "named twice"),
    ],
)
def test_what_is_no_address_is_refused(reference: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as error:
        split(reference)
    assert "secret" not in error.value.message


@pytest.mark.parametrize("reference", ["packaged:whisper-base", "openai/whisper-large-v2", "/models/x", "perturbed"])
def test_a_model_is_no_address(reference: str) -> None:
    assert not is_address(reference)
    assert plain("local:" + reference) == plain(reference) == reference


def test_a_batch_may_name_the_operators_servers_and_no_others() -> None:
    settings = load(teacher="http://teacher:8000", validator="http://validator:8000")
    batch = make_batch(SOURCES, BatchOptions(), settings)
    assert (batch.teacher, batch.validator) == ("served:teacher", "served:validator")
    assert make_batch(SOURCES, BatchOptions(teacher="http://teacher:8000"), settings).id == batch.id
    assert make_batch(SOURCES, BatchOptions(teacher="packaged:whisper-base"), settings).id != batch.id
    with pytest.raises(BadRequest, match="not an inference server of this installation"):
        make_batch(SOURCES, BatchOptions(teacher="http://169.254.169.254"), settings)
    with pytest.raises(BadRequest, match="teacher and validator are the same model"):
        make_batch(SOURCES, BatchOptions(validator="http://teacher:8000"), settings)


def test_servers_may_move_while_a_batch_waits() -> None:
    before, after = (
        make_batch(SOURCES, BatchOptions(), load(teacher=teacher))
        for teacher in ("http://a:1", "http://a:1,http://b:1")
    )
    assert before.id == after.id


def test_local_says_nothing_that_its_absence_does_not() -> None:
    named, plainly = (
        make_batch(SOURCES, BatchOptions(teacher=teacher), load())
        for teacher in ("local:packaged:whisper-base", "packaged:whisper-base")
    )
    assert named.id == plainly.id
