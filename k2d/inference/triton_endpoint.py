"""Client of one model of a Triton server, over gRPC."""

import asyncio
import json
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from k2d.errors import BadRequest, K2DError, ModelError, Overloaded, ServerUnavailable, install_hint
from k2d.inference import triton_errors
from k2d.inference.endpoint import RETRYABLE_GRPC, RETRYABLE_HTTP
from k2d.inference.wire import MAX_BODY_BYTES, Head, dump
from k2d.schema import Samples

DEFAULT_PORT: Final = 8001
MICROSECONDS: Final = 1_000_000
SECURE: Final = "grpcs"
QUEUE_FULL: Final = "exceeds maximum queue size"  # in Triton's message; the status is only UNAVAILABLE
DEAD_STUB: Final = "is not healthy"  # "Stub process 'teacher_0_0' is not healthy.": the launcher restarts it
STUB_WORDS: Final = "stub process"
# Pings detect a server that is gone without closing the connection (power, network), before the timeout does. At most
# two are sent without data in between, which servers with gRPC's default limits accept.
CHANNEL: Final = {
    "grpc.max_send_message_length": 2 * MAX_BODY_BYTES,
    "grpc.max_receive_message_length": 2 * MAX_BODY_BYTES,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.http2.max_pings_without_data": 2,
    # by default gRPC waits up to two minutes between connection attempts; k2d.inference.remote decides how long to wait
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 1_000,
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.use_local_subchannel_pool": 1,  # a connection of its own, so that closing it affects no other client
}


class TritonEndpoint:
    """An Endpoint over gRPC, with one channel for all calls. gRPC reconnects it when the connection is lost.

        endpoint = TritonEndpoint("grpc://127.0.0.1:8001/teacher")

    An instance belongs to the event loop that first calls it. `queue_full` counts refusals because of a full queue,
    which Triton's own metrics do not.
    """

    def __init__(self, address: str, *, token: str | None = None) -> None:
        """Set up a client; connects at the first call.

        Args:
            address: `grpc://host:port/model`, or `grpcs://…` for TLS.

        Raises:
            BadRequest: not such an address.
            ModelError: tritonclient is not installed.
        """
        parts = urlsplit(address)
        self._model = parts.path.strip("/")
        if parts.scheme not in ("grpc", SECURE) or not parts.hostname or not self._model:
            raise BadRequest(f"not an address of a Triton model: {address[:200]!r}", hint="grpc://host:8001/teacher")
        try:
            from tritonclient.grpc import aio
        except ImportError as error:
            raise ModelError(f"{error.name} is not installed", hint=install_hint("grpc")) from error
        self._grpc = aio
        self._address = address
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._target = f"{host}:{parts.port or DEFAULT_PORT}"
        self._secure = parts.scheme == SECURE
        # Triton checks no tokens; a proxy in front of it may
        self._headers = {"authorization": f"Bearer {token}"} if token else None
        self._client: Any = None
        self._closed = False
        self.queue_full = 0

    @property
    def address(self) -> str:
        return self._address

    async def call(self, head: Head, samples: Samples, *, timeout_s: float) -> dict[str, Any]:
        if self._closed:
            raise ModelError(f"{self._address} was closed", hint="open it again")
        limited = head if head.timeout_s is not None else head.model_copy(update={"timeout_s": timeout_s})
        try:
            result = await self._connected().infer(
                self._model,
                self._inputs(limited, samples),
                timeout=round(timeout_s * MICROSECONDS),  # of waiting in Triton's queue
                client_timeout=timeout_s,  # of the whole call
                headers=self._headers,
            )
        except self._grpc.InferenceServerException as error:
            raise self._error(str(error.status() or ""), str(error.message() or "")) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._closed and (task is None or not task.cancelling()):  # cancelled by `close`, not by the caller
                raise ServerUnavailable(f"{self._address}: the connection was closed") from error
            raise
        return self._document(result)

    async def close(self) -> None:
        """Close the channel; calls in flight fail with ServerUnavailable."""
        self._closed = True
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    def _connected(self) -> Any:
        if self._client is None:
            arguments = list(CHANNEL.items())
            self._client = self._grpc.InferenceServerClient(self._target, ssl=self._secure, channel_args=arguments)
        return self._client

    def _inputs(self, head: Head, samples: Samples) -> list[Any]:
        line = self._grpc.InferInput("HEAD", [1, 1], "BYTES")
        line.set_data_from_numpy(np.array([[dump(head)]], np.object_))
        audio = self._grpc.InferInput("SAMPLES", [1, len(samples)], "INT16")
        audio.set_data_from_numpy(np.ascontiguousarray(samples, "<i2")[None])
        return [line, audio]

    def _document(self, result: Any) -> dict[str, Any]:
        try:
            document = json.loads(result.as_numpy("ANSWER").reshape(-1)[0])
        except (ValueError, AttributeError, IndexError, TypeError):  # no such output, an empty one, or not JSON
            document = None
        if not isinstance(document, dict):
            raise ModelError(f"{self._address} answers, but not as a k2d model", hint="check the model's name")
        return document

    def _error(self, status: str, message: str) -> K2DError:
        """The error of a failed call: from our model's message, else from Triton's message, else from gRPC's status."""
        code = status.removeprefix("StatusCode.")
        model_error = triton_errors.load(message)
        if model_error is not None:
            return self._from_model(model_error)
        text = f"{self._address}: {message or code}"
        lowered = message.lower()
        if QUEUE_FULL in lowered:
            self.queue_full += 1
            return ServerUnavailable(f"{self._address}: the queue is full", busy=True)
        if DEAD_STUB in lowered and STUB_WORDS in lowered:
            return ServerUnavailable(text, hint="the model's process died and is being restarted")
        if code in RETRYABLE_GRPC:
            return ServerUnavailable(text, hint="check that the server is running and has this model, and its log")
        if code == "INVALID_ARGUMENT":
            return BadRequest(message, hint="the model does not accept this request")
        if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return ModelError(text, hint="set K2D_API_TOKEN to the token that the proxy in front of Triton expects")
        return ModelError(text, hint="see the server's log")

    def _from_model(self, error: K2DError) -> K2DError:
        """Our model's error, as ServerUnavailable where the same error over HTTP is retried."""
        text = f"{self._address}: {error.message}"
        if error.status in RETRYABLE_HTTP:
            return ServerUnavailable(text, hint=error.hint, busy=error.code == Overloaded.code)
        return error if error.status < 500 else ModelError(text, hint=error.hint or "see the server's log")
