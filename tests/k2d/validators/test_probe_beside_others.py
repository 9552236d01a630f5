"""The probe on real weights: encoders of both engines, training from a lake, a hypothesis through the batcher."""

import asyncio

import numpy as np
import pytest

from k2d.audio import encode_flac
from k2d.documents import BatchOptions
from k2d.errors import BadRequest, ModelError, NotFound
from k2d.inference import golden
from k2d.inference.batcher import MicroBatcher
from k2d.labeling.request import make_batch
from k2d.schema import (
    Chunk,
    DecodeOptions,
    ModelInfo,
    Outcome,
    Recording,
    RecordingResult,
    Segment,
    Source,
    TextScore,
    Window,
    WindowResult,
)
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators.probe import ProbeValidator, load
from k2d.validators.probe.validator import open_validator
from k2d.validators.protocol import ValidatorContext
from k2d.whisper.engine import Engine

pytest.importorskip("torch")

from trainer.probe.crossfit import ProbeRecipe, cross_fit

pytestmark = pytest.mark.integration

CLIPS = golden.clips()


class Elsewhere:
    """A transcriber without its encoder, as one that calls a server is."""

    def __init__(self, model: ModelInfo) -> None:
        self.model = model

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        raise ModelError("nobody asks")

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        raise ModelError("nobody asks")

    async def close(self) -> None:
        """Nothing to close."""


class Other(Elsewhere):
    """One with an encoder."""

    async def encode(self, window: Window) -> np.ndarray:
        raise ModelError("nobody asks")


def chunk(position: int) -> Chunk:
    clip = CLIPS[position]
    end_s = round(len(clip.samples) / 16_000, 3)
    return Chunk(0, (Segment(0.0, end_s, clip.text, (1,) * 20, -0.2, 0.0, 1.0, 0.0, clip.language),))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Lake:
    """The golden clips as a labeled batch, the truth as labels."""
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    sources = [Source(clip.name, f"lake://uploads/{n}", f"key{n}") for n, clip in enumerate(CLIPS)]
    batch = make_batch(sources, BatchOptions(name="golden", teacher=engine.model.reference), Settings(_env_file=None))
    lake.batches.put(batch)
    for n, clip in enumerate(CLIPS):
        recording = Recording(f"rec_{n:024x}", len(clip.samples) / 16_000, len(clip.samples), 0.5, "flac")
        with lake.labels.writer(f"{n:032x}", {"recording": recording, "teacher": engine.model}) as writer:
            writer.write(chunk(n), encode_flac(clip.samples))
        line = RecordingResult(n, clip.name, Outcome.LABELED, recording.duration_s, recording.id, f"{n:032x}")
        lake.batches.put_result(batch.id, line)
    return lake


def open_probe(digest: str, *, lake: Lake, teacher) -> ProbeValidator:
    async def no_model(name: str, *, english_only: bool = False):
        raise AssertionError(f"a probe opens no model, not {name}")

    context = ValidatorContext(
        teacher=teacher,
        language="zh-en",
        lake=lake,
        before=(),
        open_model=no_model,
        settings=Settings(_env_file=None),
        close_with_batch=lambda close: None,
    )
    return asyncio.run(open_validator(f"probe:{digest}", context))


def test_both_engines_encode_alike_and_company_does_not_matter(engine: Engine, reference: Engine) -> None:
    windows = [window for window, _ in golden.windows()][:2]
    together = engine.encode(windows)
    assert (together.shape, together.dtype) == ((2, 1500, 512), np.float16)
    np.testing.assert_array_equal(together[1:], engine.encode(windows[1:]))  # int8: bit for bit
    exact = reference.encode(windows[:1])[0].astype(np.float32)
    rows = len(windows[0].samples) // 320
    ours = together[0, :rows].astype(np.float32)
    assert np.corrcoef(ours.ravel(), exact[:rows].ravel())[0, 1] > 0.97  # 8 bits against 32


def test_a_batch_gets_the_hypothesis_of_a_probe_trained_on_its_batch(lake: Lake, engine: Engine) -> None:
    settings = Settings(store=str(lake.files.root), _env_file=None)
    with pytest.raises(NotFound, match="no probe has"):
        open_probe("0123456789abcdef", lake=lake, teacher=MicroBatcher(engine, batch_size=4))
    recipe = ProbeRecipe(folds=2, epochs=1)
    made = cross_fit(lake, ["golden"], recipe, settings=settings, engine=engine)
    batcher = MicroBatcher(engine, batch_size=4)
    validator = open_probe(made.digest, lake=lake, teacher=batcher)

    async def validated() -> list:
        return await asyncio.gather(
            *(
                validator.validate(chunk(n), clip.samples, (), recording_id=f"rec_{n:024x}")
                for n, clip in enumerate(CLIPS)
            )
        )

    hypotheses = asyncio.run(validated())
    assert [len(own) for own in hypotheses] == [1] * len(CLIPS)
    for (hypothesis,) in hypotheses:
        assert (hypothesis.validator, hypothesis.perturbation, hypothesis.is_phonemes) == (made.name, "as is", True)
        assert len(hypothesis.forced_logprobs) == 1
        assert -100 < hypothesis.forced_logprobs[0] < 0
    assert validator.wants(chunk(0), ())
    assert made.digest in validator.key


def test_a_probe_is_refused_beside_other_weights_and_without_the_encoder(lake: Lake, engine: Engine) -> None:
    (digest,) = lake.probes.digests()
    assert load(lake.probes.get(digest)).about["teacher_digest"] == engine.model.digest

    with pytest.raises(BadRequest, match="on a server"):
        open_probe(digest, lake=lake, teacher=Elsewhere(engine.model))

    with pytest.raises(ModelError, match="other weights"):
        open_probe(digest, lake=lake, teacher=Other(ModelInfo("other", "f" * 64, "ctranslate2", "int8", "cpu")))
