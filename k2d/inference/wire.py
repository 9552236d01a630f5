"""The messages between clients and inference servers, the same for every protocol: a JSON head and the samples.

A request is a `Head` and int16 samples, 16 kHz mono, little-endian, at most 30 s. Over HTTP the body is the head on one
line, a line feed, then the samples. Over Triton's gRPC they are the inputs `HEAD` (BYTES, [1]) and `SAMPLES` (INT16,
[n]), and the answer is the output `ANSWER` (BYTES, [1]). Answers are the same JSON documents in both; each has the
fingerprint of the model that gave it. Floats are transported without loss.
"""

from dataclasses import asdict
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from k2d.errors import BadRequest
from k2d.foreign import parse_json
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

MAX_HEAD_BYTES: Final = 256 * 1024
MAX_BODY_BYTES: Final = MAX_HEAD_BYTES + 2 * WINDOW_SAMPLES
BYTES_PER_SAMPLE: Final = 2
MAX_TIMEOUT_S: Final = 30 * 24 * 3600.0
HINT: Final = "send one line of JSON, a line feed, then 16 kHz mono int16 samples, little-endian (docs/inference.md)"

_RESULT: Final = TypeAdapter(WindowResult)
_SCORE: Final = TypeAdapter(TextScore)
_MODEL: Final = TypeAdapter(ModelInfo)
_OPTIONS: Final = frozenset(DecodeOptions.__dataclass_fields__)


class Head(BaseModel):
    """A request without its samples. Unknown members are refused, so that a typo is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    act: Literal["transcribe", "score", "describe"] = "transcribe"  # over HTTP the path decides
    options: DecodeOptions = Field(default_factory=DecodeOptions)
    prompt: tuple[int, ...] = ()  # the previous text's tokens
    text: str | None = None  # for `score`
    client: str = Field(default="", max_length=200)  # who calls; clients take turns
    timeout_s: float | None = Field(default=None, gt=0, le=MAX_TIMEOUT_S)  # when the client stops waiting


def pack(head: Head, samples: Samples) -> bytes:
    """Encode a request as an HTTP body."""
    return dump(head) + b"\n" + np.ascontiguousarray(samples, "<i2").tobytes()


def dump(head: Head) -> bytes:
    """Encode a head as JSON on one line, without members that have their default."""
    return head.model_dump_json(exclude_defaults=True).encode()


def unpack(body: bytes) -> tuple[Head, Samples]:
    """Decode head and samples, shape (n,), from an HTTP body.

    Raises:
        BadRequest: no head, an unknown member or option, half a sample, no audio, or more than 30 s.
    """
    line, feed, audio = body.partition(b"\n")
    if not feed:
        raise BadRequest("the body has no head: it contains no line feed", hint=HINT)
    if len(audio) % BYTES_PER_SAMPLE:
        raise BadRequest(f"{len(audio)} bytes are not a whole number of int16 samples", hint=HINT)
    return load(line), check_length(np.frombuffer(audio, "<i2"))


def load(line: bytes) -> Head:
    """Decode a head from JSON.

    Raises:
        BadRequest: not JSON, an unknown member or option, a value of the wrong type.
    """
    if len(line) > MAX_HEAD_BYTES:
        raise BadRequest(f"the head has {len(line)} bytes; at most {MAX_HEAD_BYTES} are allowed", hint=HINT)
    try:
        document = parse_json(line)
        unknown = sorted(set(document.get("options", {})) - _OPTIONS)
        if unknown:
            raise BadRequest(
                f"unknown option: {', '.join(unknown)}", hint=f"options are: {', '.join(sorted(_OPTIONS))}"
            )
        return Head.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise BadRequest(f"the head is invalid: {problems}", hint=HINT) from error
    except (ValueError, AttributeError, TypeError) as error:  # not UTF-8, not JSON, not an object
        raise BadRequest(f"the head is not a JSON object: {error}", hint=HINT) from error


def check_length(samples: Samples) -> Samples:
    """Return the samples if they fit into a window.

    Raises:
        BadRequest: there are none, or more than 30 s.
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
    """The engine's input for a request."""
    return Window(samples, head.prompt)


def answer(body: WindowResult | TextScore, model: ModelInfo) -> dict[str, Any]:
    """The answer document of a result or score."""
    return {"model": model.fingerprint, **asdict(body)}


def result(document: dict[str, Any]) -> WindowResult:
    """Decode the answer to `transcribe`.

    Raises:
        ValueError: not such an answer.
    """
    return _RESULT.validate_python(document)


def score(document: dict[str, Any]) -> TextScore:
    """Decode the answer to `score`.

    Raises:
        ValueError: not such an answer.
    """
    return _SCORE.validate_python(document)


def describe(model: ModelInfo, *, batch_size: int, golden: str) -> dict[str, Any]:
    """The answer document to `describe`. `golden` has the model's transcripts of the golden clips."""
    return {"model": asdict(model), "fingerprint": model.fingerprint, "batch_size": batch_size, "golden": golden}


def model_of(document: dict[str, Any]) -> ModelInfo:
    """Decode the model from the answer to `describe`.

    Raises:
        ValueError: not such an answer.
    """
    return _MODEL.validate_python(document.get("model"))
