"""What goes over the wire to an inference server, once for every protocol: a head of JSON and the samples.

A request is a `Head` and int16 samples, 16 kHz mono, little-endian, at most 30 s. Over HTTP the body is the head on
one line, a line feed, then the samples; over Triton's gRPC they are the inputs `HEAD` (BYTES, [1]) and `SAMPLES`
(INT16, [n]), and the answer is the output `ANSWER` (BYTES, [1]). Answers are the same JSON documents everywhere; each
carries the fingerprint of the model that gave it. Floats survive the trip to the last bit.
"""

import json
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from k2d.errors import BadRequest
from k2d.schema import (
    SAMPLE_RATE_HZ,
    WINDOW_SAMPLES,
    DecodeOptions,
    ModelInfo,
    Samples,
    TextScore,
    Window,
    WindowResult,
)

MAX_HEAD_BYTES = 256 * 1024
MAX_BODY_BYTES = MAX_HEAD_BYTES + 2 * WINDOW_SAMPLES
BYTES_PER_SAMPLE = 2
HINT = "send one line of JSON, a line feed, then 16 kHz mono int16 samples, little-endian (docs/inference.md)"

_RESULT = TypeAdapter(WindowResult)
_SCORE = TypeAdapter(TextScore)
_MODEL = TypeAdapter(ModelInfo)
_OPTIONS = frozenset(DecodeOptions.__dataclass_fields__)


class Head(BaseModel):
    """All of a request but its samples. Unknown members are refused: a typo must not change a label silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    act: Literal["transcribe", "score", "describe"] = "transcribe"  # over HTTP the path says it
    options: DecodeOptions = Field(default_factory=DecodeOptions)
    prompt: tuple[int, ...] = ()  # the previous text's tokens
    text: str | None = None  # what `score` scores
    client: str = Field(default="", max_length=200)  # who asks: turns are taken between clients
    timeout_s: float | None = Field(default=None, gt=0)  # an answer later than this is of no use


def pack(head: Head, samples: Samples) -> bytes:
    """The HTTP body of a request."""
    return dump(head) + b"\n" + np.ascontiguousarray(samples, "<i2").tobytes()


def dump(head: Head) -> bytes:
    """A head as JSON on one line; what has its default is left out."""
    return head.model_dump_json(exclude_defaults=True).encode()


def unpack(body: bytes) -> tuple[Head, Samples]:
    """Head and samples of an HTTP body.

    Raises:
        BadRequest: no head, an unknown member or option, half a sample, no or more than 30 s of audio.
    """
    line, feed, audio = body.partition(b"\n")
    if not feed:
        raise BadRequest("the body has no head: no line feed in it", hint=HINT)
    if len(audio) % BYTES_PER_SAMPLE:
        raise BadRequest(f"{len(audio)} bytes are no whole number of int16 samples", hint=HINT)
    return load(line), check_length(np.frombuffer(audio, "<i2"))


def load(line: bytes) -> Head:
    """A head from its JSON.

    Raises:
        BadRequest: not JSON, an unknown member or option, a value of the wrong type.
    """
    if len(line) > MAX_HEAD_BYTES:
        raise BadRequest(f"the head has {len(line)} bytes, at most {MAX_HEAD_BYTES} are taken", hint=HINT)
    try:
        document = json.loads(line)
        unknown = sorted(set(document.get("options", {})) - _OPTIONS)
        if unknown:
            raise BadRequest(
                f"unknown option: {', '.join(unknown)}", hint=f"options are: {', '.join(sorted(_OPTIONS))}"
            )
        return Head.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise BadRequest(f"the head is wrong: {problems}", hint=HINT) from error
    except (ValueError, AttributeError, TypeError) as error:  # not UTF-8, not JSON, not an object
        raise BadRequest(f"the head is no JSON object: {error}", hint=HINT) from error


def check_length(samples: Samples) -> Samples:
    """Return the samples if they fit a window and there are some.

    Raises:
        BadRequest: none, or more than 30 s.
    """
    if len(samples) == 0:
        raise BadRequest("there are no samples", hint=HINT)
    if len(samples) > WINDOW_SAMPLES:
        seconds = len(samples) / SAMPLE_RATE_HZ
        raise BadRequest(
            f"{seconds:.1f} s of audio; a window has at most 30 s", hint="cut it first: see k2d.inference.longform"
        )
    return samples


def window(head: Head, samples: Samples) -> Window:
    """The engine's input."""
    return Window(samples, head.prompt)


def answer(body: WindowResult | TextScore, model: ModelInfo) -> dict[str, Any]:
    """The document a server sends back."""
    return {"model": model.fingerprint, **asdict(body)}


def result(document: dict[str, Any]) -> WindowResult:
    """A server's answer to `transcribe`.

    Raises:
        ValueError: it is none.
    """
    return _RESULT.validate_python(document)


def score(document: dict[str, Any]) -> TextScore:
    """A server's answer to `score`.

    Raises:
        ValueError: it is none.
    """
    return _SCORE.validate_python(document)


def describe(model: ModelInfo, *, batch_size: int, golden: str) -> dict[str, Any]:
    """What a server says of itself; `golden` is its text for the golden clip."""
    return {"model": asdict(model), "fingerprint": model.fingerprint, "batch_size": batch_size, "golden": golden}


def described(document: dict[str, Any]) -> ModelInfo:
    """The model in a server's description.

    Raises:
        ValueError: there is none.
    """
    return _MODEL.validate_python(document.get("model"))
