"""Endpoints as validators: who may name them, and what real servers make of chunks."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from places import ROOT
from servers import TOKEN, Server, serve
from weights import base

from k2d.client.embedded import Embedded
from k2d.corpus.agreement import gather
from k2d.documents import BatchOptions
from k2d.errors import BadRequest, ModelError
from k2d.filtering.evidence import weigh
from k2d.inference.golden import clips
from k2d.inference.openai_endpoint import OpenAIEndpoint, parse
from k2d.labeling.request import make_batch
from k2d.schema import Chunk, Hypothesis, Segment, Source
from k2d.settings import Settings, load
from k2d.validators.openai import OpenAIValidator, check, describe
from k2d.validators.protocol import FirstValidator, hypotheses_key
from services.local.redis_server import free_port

GOLDEN = ROOT / "k2d/inference/golden/mixed.flac"
SOURCES = [Source("a.wav", "file:///a.wav", "k")]
NAMED = "openai:http://gpu1:8000/v1#small"
OTHER = "openai:https://api.openai.com/v1#whisper-1"


# ---- who may name an endpoint -------------------------------------------------------------------------------------


def test_endpoints_of_the_settings_may_be_named() -> None:
    settings = load(validator=f"perturbed+{NAMED}", openai_validators=OTHER)
    for validator in (None, NAMED, f"{OTHER}+perturbed", f"perturbed+{NAMED}+{OTHER}", NAMED.replace("gpu1", "GPU1")):
        batch = make_batch(SOURCES, BatchOptions(validator=validator), settings)
        assert batch.validator == (validator or settings.validator)


@pytest.mark.parametrize(
    "validator",
    [
        "openai:http://169.254.169.254/latest#meta-data",
        "openai:http://gpu1:8001/v1#small",  # another port
        "openai:http://gpu1:8000/v2#small",  # another path
        "openai:http://gpu1:8000/v1#large",  # another model
        "openai:https://gpu1:8000/v1#small",
        "openai:http://gpu1:8000/v1#small#",
        "openai:http://gpu1:8000/v1/../admin#small",
        "openai:http://gpu1:8000@elsewhere/v1#small",
        "openai:http://elsewhere?gpu1:8000/v1#small",
        "openai:file:///etc/passwd#small",
        "openai:",
        "openai:small",
    ],
)
@pytest.mark.parametrize("trusted", [False, True])
def test_no_request_chooses_where_workers_connect_to(validator: str, trusted: bool) -> None:
    settings = load(validator=f"perturbed+{NAMED}")
    for names in (validator, f"perturbed+{validator}"):
        with pytest.raises(BadRequest, match="endpoint") as error:
            make_batch(SOURCES, BatchOptions(validator=names), settings, trusted=trusted)
        assert error.value.hint
    with pytest.raises(BadRequest):  # nor does a batch that was stored
        check(validator, settings)


def test_nobody_may_name_an_endpoint_where_the_operator_names_none() -> None:
    with pytest.raises(BadRequest, match="not an endpoint of this installation"):
        make_batch(SOURCES, BatchOptions(validator=NAMED), load())


def test_keys_are_secret() -> None:
    settings = load(openai_api_keys="gpu1:8000=sk-secret")
    assert "sk-secret" not in repr(settings)
    assert settings.variables()["K2D_OPENAI_API_KEYS"] == "gpu1:8000=sk-secret"


# ---- keys and hypotheses ------------------------------------------------------------------------------------------


def validator(name: str = NAMED, language: str = "zh-en", **version: object) -> OpenAIValidator:
    endpoint = OpenAIEndpoint(parse(name.removeprefix("openai:")), timeout_s=1.0, patience_s=0.0, key="sk-secret")
    return OpenAIValidator(endpoint, language, tuple(sorted(version.items())))


def test_the_key_has_model_version_and_language_and_no_secret() -> None:
    plain = validator()
    others = [validator(OTHER), validator(digest="sha256:1"), validator(digest="sha256:2"), validator(language="zh")]
    keys = {hypotheses_key("label", value) for value in (plain, *others)}
    assert len(keys) == 5
    assert hypotheses_key("label", plain) == hypotheses_key("label", validator())
    assert len({value.model.fingerprint for value in (plain, *others[:3])}) == 4
    assert all("sk-secret" not in repr((value.key, value.name, value.model)) for value in (plain, *others))
    assert isinstance(plain, FirstValidator)
    assert [value.language for value in (plain, validator(language="auto"), validator(language="en"))] == [
        None,
        None,
        "en",
    ]


def test_a_text_without_scores_is_evidence_by_its_text_alone() -> None:
    segment = Segment(0.0, 2.0, "今天天氣好", (1,) * 5, -0.3, 0.0, 1.0, 0.0, "zh")
    scored = Hypothesis("perturbed:x", "as is", "今天天氣好", -0.2, (-0.9,), False, (0.5,))
    textual = Hypothesis(NAMED, "as is", "今天天氣很好", 0.0)
    alone, both = weigh([segment], [textual]).evidence, weigh([segment], [scored, textual]).evidence
    assert alone.disagreement_middle > 0
    assert (alone.forced_logprob, alone.avg_logprob) == (pytest.approx(-0.3), pytest.approx(-0.3))  # the teacher's
    assert (both.forced_logprob, both.expected_token_error) == (pytest.approx(-0.9), pytest.approx(0.5))


# ---- this project's server ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = serve(tmp_path_factory.mktemp("server") / "log", api_token=TOKEN, threads=1)
    yield server
    server.stop()


def settings_for(server: Server, store: Path, **more: object) -> Settings:
    name = f"openai:{server.url}/v1#packaged:whisper-base"
    return load(
        store=str(store),
        validator=f"perturbed+{name}",
        openai_api_keys=f"127.0.0.1:{server.port}={TOKEN}",
        server_patience_s=5.0,
        threads=1,
        **more,
    )


@pytest.mark.integration
@pytest.mark.slow
def test_a_batch_is_validated_by_this_projects_server(server: Server, tmp_path: Path) -> None:
    settings = settings_for(server, tmp_path / "store")
    backend = Embedded(settings)
    status = backend.label([str(GOLDEN)], BatchOptions(name="talks"), wait=True)
    (result,) = backend.lake.batches.results(status.id)
    assert result.facts_key is not None
    rows = list(backend.lake.facts.read(result.facts_key))
    assert rows
    name = settings.validator.split("+")[1]
    for row in rows:
        (hypothesis,) = (value for value in row.hypotheses if value.validator == name)
        assert hypothesis.text
        assert hypothesis.forced_logprobs == ()
        assert row.evidence.disagreement_least < 0.5
    fingerprint = httpx.get(server.url + "/v1/model", headers={"Authorization": f"Bearer {TOKEN}"}).json()[
        "fingerprint"
    ]
    key = backend.lake.facts.meta(result.facts_key)["hypotheses"][1]
    assert fingerprint in str(backend.lake.hypotheses.meta(key)["validator_key"])
    observations, _ = gather(backend.lake, ["talks"], most=100)
    assert name in [value.name for value in observations]


@pytest.mark.integration
@pytest.mark.slow
def test_doctor_asks_the_server_for_a_golden_clip(server: Server, tmp_path: Path) -> None:
    settings = settings_for(server, tmp_path)
    name = settings.validator.split("+")[1]
    said = asyncio.run(describe(name, settings))
    assert "transcribes" in said
    assert "fingerprint" in said
    with pytest.raises(ModelError, match="the key is missing") as error:
        asyncio.run(describe(name, settings.model_copy(update={"openai_api_keys": None})))
    assert TOKEN not in f"{error.value} {error.value.hint}"
    gone = name.replace(str(server.port), str(free_port()))
    with pytest.raises(ModelError, match="no answer within 0 s"):
        asyncio.run(describe(gone, settings))


# ---- another project's server -------------------------------------------------------------------------------------

FASTER_WHISPER_SERVER = "faster-whisper-server==0.0.3"  # MIT; its requirements are among this project's own for tests


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running faster-whisper-server with Whisper base."""
    folder = tmp_path_factory.mktemp("foreign")
    model, port, packages = base().path, free_port(), folder / "packages"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(packages), FASTER_WHISPER_SERVER]
    done = subprocess.run(install, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"{FASTER_WHISPER_SERVER} cannot be fetched: {done.stderr[-200:]}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "faster_whisper_server", str(model), "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                if httpx.get(url + "/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.integration
@pytest.mark.nightly
def test_another_projects_server_transcribes_chunks(foreign: str, tmp_path: Path) -> None:
    settings = load(validator=f"openai:{foreign}/v1#whisper-1", server_patience_s=5.0)
    assert "tells no version" in asyncio.run(describe(settings.validator, settings))

    async def validated() -> list[tuple[Hypothesis, ...]]:
        endpoint = OpenAIEndpoint(parse(settings.validator.removeprefix("openai:")), timeout_s=120.0, patience_s=5.0)
        validator = OpenAIValidator(endpoint, "zh-en", ())
        try:
            return await asyncio.gather(
                *(
                    validator.validate(
                        Chunk(0, (Segment(0.0, 1.0, clip.text, (), -0.2, 0.0, 1.0, 0.0, "zh"),)),
                        clip.samples,
                        (),
                        recording_id="rec_1",
                    )
                    for clip in clips()
                )
            )
        finally:
            await endpoint.close()

    for clip, (hypothesis,) in zip(clips(), asyncio.run(validated()), strict=True):
        segment = Segment(0.0, 10.0, clip.text, (), -0.2, 0.0, 1.0, 0.0, clip.language)
        assert weigh([segment], [hypothesis]).evidence.disagreement_middle < 0.35, hypothesis.text
