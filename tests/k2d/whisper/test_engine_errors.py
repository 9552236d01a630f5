"""What an engine's library raises, in k2d's errors."""

import pytest

from k2d.errors import BadRequest, ModelError
from k2d.schema import ModelInfo
from k2d.whisper.engine import engine_errors

SMALL = ModelInfo("small", "0" * 64, "ctranslate2", "int8", "cpu")


def test_an_engine_that_fails_or_was_closed_is_a_model_error_with_a_hint() -> None:
    failed = pytest.raises(ModelError, match="small failed while decoding: out of memory")
    with failed as caught, engine_errors(SMALL, closed=False):
        raise RuntimeError("out of memory")
    assert "K2D_COMPUTE_TYPE" in str(caught.value.hint)
    with pytest.raises(ModelError, match="small was closed"), engine_errors(SMALL, closed=True):
        pass


def test_a_request_that_makes_no_sense_stays_the_callers_fault() -> None:
    with pytest.raises(BadRequest), engine_errors(SMALL, closed=False):
        raise BadRequest("unknown language")
