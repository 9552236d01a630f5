"""The wire: what is packed comes out again to the last bit, and what makes no sense is refused with a reason."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.errors import BadRequest
from k2d.inference import wire
from k2d.inference.wire import Head
from k2d.schema import WINDOW_SAMPLES, DecodeOptions, ModelInfo, Piece, TextScore, WindowResult

SAMPLES = np.array([0, 1, -1, 32767, -32768], np.int16)
MODEL = ModelInfo("openai/whisper-large-v2", "ab" * 32, "ctranslate2", "float16", "cuda")

heads = st.builds(
    Head,
    act=st.sampled_from(["transcribe", "score"]),
    options=st.builds(
        DecodeOptions,
        language=st.sampled_from(["zh-en", "auto", "zh"]),
        temperatures=st.lists(st.floats(0, 2), min_size=1, max_size=6).map(tuple),
        log_prob_threshold=st.none() | st.floats(-10, 0),
        initial_prompt=st.none() | st.text(max_size=40),
    ),
    prompt=st.lists(st.integers(0, 51_864), max_size=223).map(tuple),
    text=st.none() | st.text(max_size=40),
    client=st.text(max_size=40),
    timeout_s=st.none() | st.floats(0.01, 1e6),
)


@given(head=heads, samples=st.lists(st.integers(-32768, 32767), min_size=1, max_size=100))
def test_a_request_survives_the_trip(head: Head, samples: list[int]) -> None:
    found, audio = wire.unpack(wire.pack(head, np.array(samples, np.int16)))
    assert found == head
    assert audio.tolist() == samples


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 30), st.text(max_size=40))
def test_an_answer_survives_the_trip_to_the_last_bit(logprob: float, start_s: float, text: str) -> None:
    result = WindowResult(
        text, (50364, 1, 50414), (Piece(start_s, 30.0, text, (1,)),), None, logprob, 0.1, 1.7, 0.2, "zh", (("zh", 0.9),)
    )
    document = json.loads(json.dumps(wire.answer(result, MODEL)))
    assert wire.result(document) == result
    assert document["model"] == MODEL.fingerprint


def test_a_score_and_a_description_survive_the_trip() -> None:
    score = TextScore((1, 2), (-0.1, -2.5), -1.3)
    assert wire.score(json.loads(json.dumps(wire.answer(score, MODEL)))) == score
    described = json.loads(json.dumps(wire.describe(MODEL, batch_size=16, golden="你好")))
    assert wire.model_of(described) == MODEL


def test_defaults_are_left_out_so_that_heads_stay_short() -> None:
    assert wire.pack(Head(), SAMPLES).startswith(b"{}\n")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no head"),
        (b"{}", "no head"),
        (b"{}\n", "no samples"),
        (b"{}\n\x00", "not a whole number"),
        (b"{}\n" + bytes(2 * (WINDOW_SAMPLES + 16_000)), "31.0 s of audio"),
        (b"[]\n\x00\x00", "not a JSON object"),
        (b"null\n\x00\x00", "not a JSON object"),
        (b"\xff\n\x00\x00", "not a JSON object"),
        (b'{"opt": 1}\n\x00\x00', "opt: Extra inputs"),
        (b'{"options": {"beams": 5}}\n\x00\x00', "unknown option: beams"),
        (b'{"options": []}\n\x00\x00', "options"),
        (b'{"options": {"beam_size": "many"}}\n\x00\x00', "beam_size"),
        (b'{"prompt": "abc"}\n\x00\x00', "prompt"),
        (b'{"timeout_s": -1}\n\x00\x00', "timeout_s"),
        (b'{"client": "' + b"x" * 300_000 + b'"}\n\x00\x00', "at most"),
    ],
)
def test_what_makes_no_sense_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        wire.unpack(body)


@pytest.mark.parametrize("document", [{}, {"text": "x"}, {"model": "x", "text": 1}])
def test_an_answer_of_somebody_else_is_none(document: dict[str, object]) -> None:
    for read in (wire.result, wire.score, wire.model_of):
        with pytest.raises(ValueError, match="validation error"):
            read(document)
