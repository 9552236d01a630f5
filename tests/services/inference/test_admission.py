"""How many requests an inference server holds in memory, of either kind."""

from contextlib import ExitStack

import pytest

from k2d.errors import Overloaded
from services.inference.admission import Admission, RequestKind
from services.web.request_metrics import REGISTRY


def refused() -> float:
    return REGISTRY.get_sample_value("k2d_refused_total", {"reason": "overloaded"}) or 0.0


def test_recordings_leave_half_of_the_places_to_single_windows() -> None:
    admission, before = Admission(2, retry_after_s=lambda: 3.21), refused()
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(admission.admit(RequestKind.RECORDING))
        with pytest.raises(Overloaded) as caught, admission.admit(RequestKind.RECORDING):
            pass
        assert caught.value.details["retry_after_s"] == 3.2
        for _ in range(2):
            stack.enter_context(admission.admit(RequestKind.WINDOW))
        with pytest.raises(Overloaded, match="4 requests"), admission.admit(RequestKind.WINDOW):
            pass
        assert (admission.count, refused() - before) == (4, 2)
    assert admission.count == 0


def test_a_request_that_fails_gives_its_place_back() -> None:
    admission = Admission(1, retry_after_s=lambda: 1.0)
    with pytest.raises(ZeroDivisionError), admission.admit(RequestKind.WINDOW):
        raise ZeroDivisionError
    assert admission.count == 0
