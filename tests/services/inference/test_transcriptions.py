"""OpenAI's own client against a server in a process of its own: every format, streaming, errors, leaving early."""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import soundfile
from places import EXAMPLES, ROOT
from servers import AUTHORIZED, TOKEN, Server
from weights import open_base

from k2d import audio
from k2d.inference.batcher import MicroBatcher
from k2d.inference.longform import transcribe
from k2d.schema import DecodeOptions, LongformOptions, Segment
from k2d.settings import load
from k2d.text.subtitles import srt, vtt

pytestmark = [pytest.mark.integration]

ENGLISH = EXAMPLES / "en-clean.mp3"
LECTURE = EXAMPLES / "lecture.ogg"
CLIP = ROOT / "k2d" / "inference" / "golden" / "mixed.flac"


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0, timeout=180) as client:
        yield client


@pytest.fixture(scope="module")
def expected() -> list[Segment]:
    """The English example, in this process."""

    async def run() -> list[Segment]:
        batcher = MicroBatcher(open_base(), batch_size=1)
        samples = audio.examine(str(ENGLISH), min_s=0.1, max_s=100, silence_peak=0.001).samples
        with audio.SampleReader(str(ENGLISH)) as reader:
            options = LongformOptions(DecodeOptions(beam_size=load().beam_size))
            segments = [segment async for segment in transcribe(reader, batcher, options, total_samples=samples)]
        await batcher.close()
        return segments

    return asyncio.run(run())


def test_every_format_says_what_the_engine_says(client: openai.OpenAI, expected: list[Segment]) -> None:
    create = client.audio.transcriptions.create
    text = "".join(segment.text for segment in expected).strip()
    assert "twice as fast" in text
    plain = create(file=ENGLISH, model="whisper-1")
    assert plain.text == text
    assert plain.usage is not None
    assert plain.usage.to_dict() == {"type": "duration", "seconds": 14}
    assert create(file=ENGLISH, model="whisper-1", response_format="text") == text + "\n"
    assert create(file=ENGLISH, model="whisper-1", response_format="srt") == srt(expected)
    assert create(file=ENGLISH, model="whisper-1", response_format="vtt") == vtt(expected)


def test_verbose_json_has_the_segments_with_their_signals(client: openai.OpenAI, expected: list[Segment]) -> None:
    transcript = client.audio.transcriptions.create(
        file=ENGLISH, model="x", response_format="verbose_json", timestamp_granularities=["segment"], language="zh-en"
    )
    assert (transcript.language, transcript.duration) == ("zh-en", 13.605)
    assert transcript.segments is not None
    for number, (got, want) in enumerate(zip(transcript.segments, expected, strict=True)):
        assert (got.id, got.start, got.end, got.text) == (number, want.start_s, want.end_s, want.text)
        assert tuple(got.tokens) == want.tokens
        assert (got.avg_logprob, got.no_speech_prob) == (want.avg_logprob, want.no_speech_prob)
        assert (got.compression_ratio, got.temperature) == (want.compression_ratio, want.temperature)
        assert got.seek == round(want.start_s * 100)


def test_the_language_is_detected_when_asked_to(client: openai.OpenAI) -> None:
    transcript = client.audio.transcriptions.create(
        file=ENGLISH, model="x", response_format="verbose_json", language="auto", temperature=0.2
    )
    assert transcript.language == "en"
    assert transcript.segments is not None
    assert transcript.segments[0].temperature == 0.2


def test_a_prompt_names_what_is_misheard(client: openai.OpenAI) -> None:
    create = client.audio.transcriptions.create
    assert "IKEA" not in create(file=CLIP, model="x").text
    assert "IKEA" in create(file=CLIP, model="x", prompt="我要去 IKEA 買 desk").text


def test_a_long_recording_is_streamed_as_it_is_transcribed(server: Server, client: openai.OpenAI) -> None:
    """93 s in Ogg, four windows: the first words come before the others are decoded, and all add up to the text."""
    before, first_at, deltas, done = windows_done(server), 0.0, [], ""
    for event in client.audio.transcriptions.create(file=LECTURE, model="x", stream=True):
        if event.type == "transcript.text.delta":
            first_at = first_at or windows_done(server) - before
            deltas.append(event.delta)
        elif event.type == "transcript.text.done":
            done = event.text
    assert 1 <= first_at < windows_done(server) - before
    assert len(deltas) > 8
    assert "".join(deltas) == done
    assert "參數量只有一半" in done  # the first window
    assert "第一件事情就是先" in done  # the last


def windows_done(server: Server) -> float:
    return server.metric("k2d_batch_size_sum")


def test_silence_is_an_empty_text(client: openai.OpenAI) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(3 * 8000, np.int16), 8000, format="WAV")
    text = client.audio.transcriptions.create(file=("silence.wav", file.getvalue()), model="x", language="en").text
    assert len(text) < 20  # nothing, or a short hallucination: the model's business, not an error


def test_the_server_says_which_model_it_was(client: openai.OpenAI, server: Server) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(file=CLIP, model="gpt-9-transcribe")
    model = httpx.get(server.url + "/v1/model", headers=AUTHORIZED).json()
    assert answer.headers["k2d-model"] == model["fingerprint"]
    (listed,) = client.models.list().data
    assert listed.id == model["model"]["reference"]
    assert listed.to_dict()["fingerprint"] == model["fingerprint"]


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "param", "why"),
    [
        ({"timestamp_granularities": ["word"], "response_format": "verbose_json"}, "timestamp_granularities", "word"),
        ({"timestamp_granularities": ["segment"]}, "timestamp_granularities", "verbose_json"),
        ({"response_format": "diarized_json"}, "response_format", "srt"),
        ({"response_format": "srt", "stream": True}, "stream", "srt cannot be streamed"),
        ({"temperature": 1.5}, "temperature", "less than or equal to 1"),
        ({"include": ["logprobs"]}, "include", "unknown field: 'include'"),
        ({"extra_body": {"langauge": "en"}}, "langauge", "unknown field: 'langauge'"),
        ({"language": "tlh"}, None, "unknown language: 'tlh'"),
        ({"language": "tlh", "stream": True}, None, "unknown language: 'tlh'"),
        ({"prompt": "x" * 9000}, "prompt", "8192"),
        ({"file": ("notes.txt", b"no audio at all, but plenty of text" * 40)}, "file", "not audio"),
        ({"file": ("empty.wav", b"")}, "file", "empty"),
        ({"file": EXAMPLES / "cut-off.flac"}, "file", "cut off"),
    ],
)
def test_what_cannot_be_done_is_refused_in_openais_words(
    client: openai.OpenAI, asked: dict[str, object], param: str | None, why: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=why) as caught:
        client.audio.transcriptions.create(**{"file": CLIP, "model": "x", **asked})  # type: ignore[call-overload]
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.code
    assert "hint" in caught.value.message


def test_a_recording_beyond_the_limit_is_refused_before_it_is_decoded(client: openai.OpenAI) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16_000 * 130, np.int16), 16_000, format="FLAC")
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(file=("long.flac", file.getvalue()), model="x")
    assert caught.value.code == "too_long"


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"", "multipart/form-data; boundary=x"), (b"{}", "application/json"), (b"--x\r\nrubbish", "multipart/form-data")],
)
def test_what_is_no_form_is_refused(server: Server, content: bytes, kind: str) -> None:
    headers = AUTHORIZED | {"Content-Type": kind}
    answer = httpx.post(server.url + "/v1/audio/transcriptions", content=content, headers=headers)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_without_the_token_nobody_is_served(server: Server) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="another").audio.transcriptions.create(file=CLIP, model="x")


# ---- leaving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_takes_its_recording_along(server: Server, client: openai.OpenAI, stream: bool) -> None:
    windows, ended = windows_done(server), requests_ended(server)
    if stream:
        with client.audio.transcriptions.create(file=LECTURE, model="x", stream=True) as events:
            next(iter(events))
    else:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=1.0).audio.transcriptions.create(file=LECTURE, model="x")
    server.wait_for(lambda: requests_ended(server) > ended, "an end of the request")
    # waits for the window that the engine had begun
    assert client.audio.transcriptions.create(file=CLIP, model="x", temperature=1.0).text
    assert windows_done(server) - windows < 4, "the whole recording was transcribed for nobody"


def requests_ended(server: Server) -> float:
    return server.metric("k2d_http_requests_total", route="/v1/audio/transcriptions")


def test_recordings_of_several_clients_meet_in_batches(server: Server) -> None:
    calls, windows = server.metric("k2d_batch_size_count"), server.metric("k2d_batch_size_sum")

    async def together() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, timeout=180) as client:
            asked = (client.audio.transcriptions.create(file=CLIP, model="x") for _ in range(6))
            return [transcript.text for transcript in await asyncio.gather(*asked)]

    assert len(set(asyncio.run(together()))) == 1
    assert server.metric("k2d_batch_size_sum") - windows == 6
    assert server.metric("k2d_batch_size_count") - calls < 6


def test_nothing_stays_on_disk(server: Server) -> None:
    """Uploads are spooled to unnamed files: what leaves no name leaves nothing behind."""
    assert not [path for path in Path(server.log.parent).iterdir() if path != server.log]
