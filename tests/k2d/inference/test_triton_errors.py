"""Errors on their way through Triton: ours come back as what they were, Triton's own become what they mean."""

import pytest

from k2d.errors import BadRequest, DeadlineExceeded, K2DError, ModelError, Overloaded, ServerUnavailable, TooLarge
from k2d.inference import triton_errors
from k2d.inference.triton_endpoint import TritonEndpoint


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("unknown language 'xx'", hint="languages are: zh-en, auto"),
        ModelError("記憶體不足"),
        TooLarge("30.1 s"),
        K2DError("the server failed: TypeError", hint="its log has the details"),
        triton_errors.RequestCancelled("gone"),
    ],
)
def test_an_error_comes_back_as_what_it_was(error: K2DError) -> None:
    text = triton_errors.dump(error)
    assert text.isascii()
    back = triton_errors.load(f"[request id: 7] {text}\n")
    assert back is not None
    assert (type(back), back.message, back.hint) == (type(error), error.message, error.hint)


def test_an_error_nobody_knows_here_keeps_code_and_status() -> None:
    back = triton_errors.load(triton_errors.MARK + '{"code":"from_the_future","status":418,"message":"tea"}}')
    assert back is not None
    assert (back.code, back.status, back.message, back.hint) == ("from_the_future", 418, "tea", None)


def test_messages_stay_below_what_grpc_takes() -> None:
    text = triton_errors.dump(BadRequest("好" * 100_000, hint="長" * 100_000))
    assert len(text) < 6000
    assert triton_errors.load(text) is not None


@pytest.mark.parametrize("text", ["", "Stub process is not healthy", '{"k2d_error":{"code":', '{"k2d_error":[]}'])
def test_what_is_not_ours_is_nobodys(text: str) -> None:
    assert triton_errors.load(text) is None


@pytest.mark.parametrize(
    ("status", "message", "kind", "busy"),
    [
        ("UNAVAILABLE", "[request id: <id>] Exceeds maximum queue size", ServerUnavailable, True),
        ("UNAVAILABLE", "failed to connect to all addresses", ServerUnavailable, False),
        ("UNAVAILABLE", "Request timeout expired", ServerUnavailable, False),
        ("INTERNAL", "Stub process 'teacher_0_0' is not healthy.", ServerUnavailable, False),
        ("NOT_FOUND", "Request for unknown model: 'teacher' is not found", ServerUnavailable, False),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", ServerUnavailable, False),
        ("INVALID_ARGUMENT", "unexpected datatype TYPE_FP32", BadRequest, None),
        ("UNAUTHENTICATED", "no token", ModelError, None),
        ("INTERNAL", "something else", ModelError, None),
        ("UNAVAILABLE", triton_errors.dump(ModelError("out of memory")), ServerUnavailable, False),
        ("UNAVAILABLE", triton_errors.dump(Overloaded("full")), ServerUnavailable, True),
        ("UNAVAILABLE", triton_errors.dump(DeadlineExceeded("too late")), ServerUnavailable, False),
        ("INVALID_ARGUMENT", triton_errors.dump(BadRequest("31 s")), BadRequest, None),
        ("INTERNAL", triton_errors.dump(K2DError("a bug")), ModelError, None),
    ],
)
def test_what_a_failed_call_means(status: str, message: str, kind: type[K2DError], busy: bool | None) -> None:
    endpoint = TritonEndpoint("grpc://localhost:1/teacher")
    error = endpoint._error(f"StatusCode.{status}", message)
    assert type(error) is kind
    assert getattr(error, "busy", None) == busy
    assert endpoint.queue_full == ("maximum queue" in message)


@pytest.mark.parametrize("address", ["http://localhost:8001/teacher", "grpc://localhost:8001", "grpc:///teacher"])
def test_an_address_without_host_or_model_is_refused(address: str) -> None:
    with pytest.raises(BadRequest):
        TritonEndpoint(address)
