"""What an engine's library raises, in k2d's errors."""

import pytest

from k2d.errors import BadRequest, ModelError
from k2d.whisper.engine import model_errors


def test_an_engine_that_fails_or_was_closed_is_a_model_error_with_a_hint() -> None:
    failed = pytest.raises(ModelError, match="small failed while decoding: out of memory")
    with failed as caught, model_errors("small", is_open=True):
        raise RuntimeError("out of memory")
    assert "K2D_COMPUTE_TYPE" in str(caught.value.hint)
    with pytest.raises(ModelError, match="small was closed"), model_errors("small", is_open=False):
        pass


def test_a_request_that_makes_no_sense_stays_the_callers_fault() -> None:
    with pytest.raises(BadRequest), model_errors("small", is_open=True):
        raise BadRequest("unknown language")
