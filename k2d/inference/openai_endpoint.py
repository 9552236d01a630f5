"""Client of a server with OpenAI's transcription endpoint: text only, with retries and bounded concurrency."""

import asyncio
import io
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import count
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx
import numpy as np
import soundfile

from k2d.errors import BadRequest, ModelError, ServerUnavailable
from k2d.inference.address import HTTP
from k2d.inference.endpoint import RETRYABLE_HTTP
from k2d.schema import SAMPLE_RATE_HZ, Samples

CONNECT_S: Final = 5.0
FIRST_WAIT_S: Final = 0.5  # between attempts; doubles with each
MAX_WAIT_S: Final = 10.0  # of the backoff; a server's Retry-After may be longer
SERVER_ERRORS: Final = 3  # attempts at a request that the server answers with 500
LEAST_SAMPLES: Final = SAMPLE_RATE_HZ // 10  # OpenAI refuses audio shorter than 0.1 s
QUOTED: Final = 300  # characters of a server's error message that are repeated
# What a server may tell of a model in GET /models that changes with its weights
VERSION_FIELDS: Final = (
    "created",
    "digest",
    "fingerprint",
    "hash",
    "owned_by",
    "revision",
    "root",
    "sha256",
    "version",
)
CLOCK_S: Final = 1.1  # a `created` that changes within this time is the time of the request (vLLM, llama.cpp)
NO_CREDIT: Final = "insufficient_quota"  # OpenAI's code of a 429 that no waiting mends

_KEY_OF_HOST: Final = re.compile(r"([^\s=,/@]+)=(\S+)")


@dataclass(frozen=True, slots=True)
class OpenAIModel:
    """A model at an endpoint."""

    base_url: str  # without a slash at its end
    name: str

    @property
    def reference(self) -> str:
        return f"{self.base_url}#{self.name}"

    @property
    def host(self) -> str:
        """Host and port as in the URL."""
        return urlsplit(self.base_url).netloc.lower()


def parse(reference: str) -> OpenAIModel:
    """Parse "URL#model".

        parse("http://127.0.0.1:8000/v1#whisper-1").name  # "whisper-1"

    A "+" in the model's name is written %2B, since "+" joins validators.

    Raises:
        BadRequest: it is not an HTTP URL with a model, or contains credentials or a query.
    """
    hint = "openai:http://host:port/v1#model; keys are set in K2D_OPENAI_API_KEYS"
    try:
        parts = urlsplit(reference)
        valid = (
            parts.scheme in HTTP
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
            and bool(parts.fragment)
            and not re.search(r"[\s\x00-\x1f\\]", reference)
        )
    except ValueError:  # the port is not a number
        valid = False
    if not valid:
        raise BadRequest("not the URL of an endpoint with a model after '#'", hint=hint)
    if parts.username is not None or parts.password is not None or parts.query:
        raise BadRequest("the URL of an endpoint has no credentials and no query", hint=hint)
    return OpenAIModel(f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}", unquote(parts.fragment))


def key_of(host: str, keys: str) -> str | None:
    """The API key for a host in "host=KEY,host:port=KEY"; None if there is none for exactly this host and port.

    Raises:
        BadRequest: the keys are malformed. The error does not repeat them.
    """
    by_host = {}
    for number, part in enumerate(filter(None, (part.strip() for part in keys.split(","))), 1):
        match = _KEY_OF_HOST.fullmatch(part)
        if match is None:
            raise BadRequest(f"entry {number} of K2D_OPENAI_API_KEYS is not host=KEY", hint="api.openai.com=KEY")
        by_host[match[1].lower()] = match[2]
    return by_host.get(host)


class OpenAIEndpoint:
    """A model behind `POST /audio/transcriptions`. Calls may run concurrently.

        endpoint = OpenAIEndpoint(parse("http://127.0.0.1:8000/v1#whisper-1"), timeout_s=60.0, patience_s=120.0)
        text = await endpoint.transcribe(samples, language="en")

    A failed request is repeated, with increasing waits, for `patience_s` seconds; while the server says `Retry-After`,
    no request is sent. Redirects are not followed, so that nothing but the named host is ever called.
    """

    def __init__(
        self, model: OpenAIModel, *, key: str | None = None, timeout_s: float, patience_s: float, concurrency: int = 8
    ) -> None:
        """`key` is sent as a bearer token; `concurrency` is the most requests in flight."""
        self.model = model
        self._key = key
        self._patience_s = patience_s
        self._slots = asyncio.Semaphore(concurrency)
        self._closed_until = 0.0  # time.monotonic(): the server asked for no request until then
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s), pool=None),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            follow_redirects=False,
        )

    async def transcribe(self, samples: Samples, *, language: str | None = None) -> str:
        """Transcribe int16 samples of shape (n,), 16 kHz, at temperature 0; returns the text, stripped.

        Args:
            language: an ISO 639-1 code; None: the server detects it.

        Raises:
            ModelError: the server refuses the request, cannot be reached, or sends something else.
        """
        audio = await asyncio.to_thread(_wav, samples)
        fields = {"model": self.model.name, "response_format": "json", "temperature": "0"}
        if language is not None:
            fields["language"] = language

        async def send() -> httpx.Response:
            file = ("chunk.wav", audio, "audio/wav")
            return await self._client.post(
                f"{self.model.base_url}/audio/transcriptions", data=fields, files={"file": file}
            )

        document = _json(await self._call(send))
        text = document.get("text") if isinstance(document, dict) else None
        if not isinstance(text, str):
            raise ModelError(
                f"{self.model.base_url} answers, but not as OpenAI's transcription endpoint",
                hint="the URL ends before /audio/transcriptions, usually with /v1",
            )
        return text.strip()

    async def version(self) -> dict[str, Any]:
        """What the server tells of the model in `GET /models` that changes with its weights; {} if it tells nothing.

        A `created` that is the time of the request is left out.

        Raises:
            ModelError: as `transcribe`.
        """
        entry = await self._entry()
        if "created" in entry:
            await asyncio.sleep(CLOCK_S)
            again = await self._entry()
            if again.get("created") != entry["created"]:
                del entry["created"]
        return entry

    async def close(self) -> None:
        await self._client.aclose()

    async def _entry(self) -> dict[str, Any]:
        async def send() -> httpx.Response:
            return await self._client.get(f"{self.model.base_url}/models")

        try:
            document = _json(await self._call(send))
        except _NoSuchPage:  # the list of models is optional
            return {}
        listed = document.get("data") if isinstance(document, dict) else None
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        named = [entry for entry in entries if entry.get("id") == self.model.name]
        # a server with one model has that one, whatever name it is called by
        entry = (named or (entries if len(entries) == 1 else [{}]))[0]
        return {name: entry[name] for name in VERSION_FIELDS if isinstance(entry.get(name), str | int | float)}

    async def _call(self, send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """Send a request until there is an answer.

        Raises:
            ModelError: the server refuses it, or there was none within the patience.
        """
        give_up_at: float | None = None
        failures = 0
        for attempt in count():
            try:
                async with self._slots:
                    await asyncio.sleep(max(0.0, self._closed_until - time.monotonic()))
                    return self._checked(await send(), last=failures + 1 >= SERVER_ERRORS)
            except httpx.TransportError as error:  # refused, reset, cut off, timed out
                problem = ServerUnavailable(f"{self.model.base_url}: {str(error) or type(error).__name__}")
            except ServerUnavailable as error:
                problem = error
                failures += bool(error.details.get("failed"))
            now = time.monotonic()
            give_up_at = now + self._patience_s if give_up_at is None else give_up_at
            backoff = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0)
            wait_s = max(backoff, problem.retry_after_s or 0.0)
            if now + wait_s > give_up_at:
                asked = f", and asks to wait {problem.retry_after_s:g} s" if problem.retry_after_s else ""
                raise ModelError(
                    f"no answer within {self._patience_s:g} s from {problem.message}{asked}",
                    hint="check that the server is running, and its limits; K2D_SERVER_PATIENCE_S sets how long to "
                    "wait. The job is retried",
                ) from problem
            if problem.retry_after_s:
                self._closed_until = max(self._closed_until, now + problem.retry_after_s)
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")  # the loop has no end

    def _checked(self, response: httpx.Response, *, last: bool) -> httpx.Response:
        """The response if it is a success.

        Raises:
            ServerUnavailable: a retry may succeed.
            ModelError: it would not.
        """
        status = response.status_code
        if response.is_success:
            return response
        base_url = self.model.base_url
        said, code = self._message(response)
        message = f"{base_url} with model {self.model.name!r}: HTTP {status}{said}"
        if status == HTTPStatus.TOO_MANY_REQUESTS and code == NO_CREDIT:
            raise ModelError(message, hint="the account has no credit left")
        if status in RETRYABLE_HTTP or (status == HTTPStatus.INTERNAL_SERVER_ERROR and not last):
            failed = status == HTTPStatus.INTERNAL_SERVER_ERROR
            raise ServerUnavailable(message, retry_after_s=_retry_after(response), failed=failed)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            # what the server says may repeat the key
            hint = f"set its key: K2D_OPENAI_API_KEYS={self.model.host}=KEY"
            raise ModelError(
                f"{base_url}: HTTP {status}, the key is {'refused' if self._key else 'missing'}", hint=hint
            )
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED):
            raise _NoSuchPage(
                message, hint="check the URL (it ends before /audio/transcriptions, usually with /v1) and the model"
            )
        if response.is_redirect:
            raise ModelError(f"{base_url} redirects elsewhere", hint="name the address that it redirects to")
        raise ModelError(message, hint="check the model's name, and the server's log")

    def _message(self, response: httpx.Response) -> tuple[str, str]:
        """What the server says about an error (": …" or ""), without the key, and its code."""
        document = _json(response)
        error = document.get("error", document.get("detail")) if isinstance(document, dict) else None
        code = str(error.get("code")) if isinstance(error, dict) else ""
        said = error.get("message") if isinstance(error, dict) else error
        if not isinstance(said, str) or not said:
            return "", code
        if self._key:
            said = said.replace(self._key, "…")
        return f": {said[:QUOTED]}", code


class _NoSuchPage(ModelError):
    """The server has no such page or model."""


def _wav(samples: Samples) -> bytes:
    """Samples as a WAV file; audio shorter than the least is padded with silence."""
    if len(samples) < LEAST_SAMPLES:
        samples = np.pad(samples, (0, LEAST_SAMPLES - len(samples)))
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds from the header `Retry-After`, which has seconds or a date; None if there is none.

    A date is compared with the answer's own, so that clocks may differ.
    """
    value = response.headers.get("Retry-After", "")
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    if (at := _timestamp(value)) is None:
        return None
    now = _timestamp(response.headers.get("Date", "")) or datetime.now(UTC).timestamp()
    return max(0.0, at - now)


def _timestamp(date: str) -> float | None:
    """Unix time of a date in a header; None if it is none."""
    try:
        at = parsedate_to_datetime(date)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
