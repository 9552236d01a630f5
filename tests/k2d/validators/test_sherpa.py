"""Models of sherpa-onnx as validators: the contract, with tiny models of each family."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from k2d.documents import BatchOptions
from k2d.errors import BadRequest, ModelError
from k2d.inference.golden import clips
from k2d.inference.model_cache import ModelCache
from k2d.labeling.request import make_batch
from k2d.schema import Chunk, Hypothesis, Segment, Source
from k2d.settings import Settings
from k2d.settings import load as load_settings
from k2d.validators.onnx_metadata import metadata_of
from k2d.validators.protocol import FirstValidator, hypotheses_key
from k2d.validators.sherpa import SherpaValidator, describe, digest_of, load, model_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("sherpa_onnx")

import tiny_onnx  # noqa: E402  needs onnx

CHUNK = Chunk(0, (Segment(0.0, 3.0, "你好 deadline", (), -0.2, 0.0, 1.0, 0.0, "zh"),))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(cache=tmp_path / "cache", threads=1)


def opened(folder: Path, settings: Settings) -> SherpaValidator:
    return load(f"sherpa:{folder}", settings, language="zh-en")


def texts(validator: SherpaValidator, *samples: np.ndarray) -> list[str]:
    async def run() -> list[tuple[Hypothesis, ...]]:
        return await asyncio.gather(*(validator.validate(CHUNK, part, (), recording_id="rec_1") for part in samples))

    hypotheses = [hypothesis for (hypothesis,) in asyncio.run(run())]
    assert all(value.validator == validator.name and value.perturbation == "as is" for value in hypotheses)
    assert all(value.forced_logprobs == () for value in hypotheses)
    return [value.text for value in hypotheses]


@pytest.mark.parametrize("family", tiny_onnx.FAMILIES)
def test_every_family_transcribes_and_repeats_itself(family: str, settings: Settings, tmp_path: Path) -> None:
    validator = opened(tiny_onnx.write(tmp_path / family, family), settings)
    assert isinstance(validator, FirstValidator)
    assert validator.wants(CHUNK, ())
    samples = [clip.samples for clip in clips()]
    first = texts(validator, *samples)
    assert texts(validator, *reversed(samples))[::-1] == first
    assert len(set(first)) == len(first)  # they depend on the audio
    assert all(first)


@pytest.mark.parametrize("family", ["nemo", "telespeech", "transducer"])
@pytest.mark.parametrize("samples", [0, 1, 400, 1600, 30 * 16_000])
def test_any_length_of_audio_is_taken(family: str, samples: int, settings: Settings, tmp_path: Path) -> None:
    validator = opened(tiny_onnx.write(tmp_path / family, family), settings)
    assert len(texts(validator, np.zeros(samples, np.int16))) == 1


def test_a_kept_model_is_loaded_once_for_its_files(settings: Settings, tmp_path: Path) -> None:
    folder, models = tiny_onnx.write(tmp_path / "a", "nemo"), ModelCache()
    samples = clips()[0].samples
    written = []
    for _ in range(2):
        validator = load(f"sherpa:{folder}", settings, language="zh-en", models=models)
        written += texts(validator, samples)
        asyncio.run(validator.close())
    assert written[0] == written[1]
    assert models.loads == 1
    (folder / "tokens.txt").write_text((folder / "tokens.txt").read_text("utf-8") + "x 8\n", "utf-8")
    load(f"sherpa:{folder}", settings, language="zh-en", models=models)
    assert models.loads == 2


def test_the_key_is_of_the_files(settings: Settings, tmp_path: Path) -> None:
    folder = tiny_onnx.write(tmp_path / "a", "nemo")
    before = opened(folder, settings)
    assert hypotheses_key("label", before) == hypotheses_key("label", opened(folder, settings))
    copy = tiny_onnx.write(tmp_path / "b", "nemo")
    assert opened(copy, settings).key == before.key  # wherever they are
    (folder / "tokens.txt").write_text((folder / "tokens.txt").read_text("utf-8") + "x 8\n", "utf-8")
    assert digest_of(folder) != digest_of(copy)
    assert opened(tiny_onnx.write(tmp_path / "c", "nemo", seed=4), settings).key != before.key


def test_the_original_is_taken_before_the_quantised(tmp_path: Path) -> None:
    folder = tiny_onnx.write(tmp_path / "a", "nemo", name="model.int8.onnx")
    assert model_of(folder, language="zh").arguments["model"].endswith("model.int8.onnx")
    tiny_onnx.write(folder, "nemo")
    assert model_of(folder, language="zh").arguments["model"].endswith("model.onnx")


def test_sense_voice_gets_the_batchs_language_if_it_knows_it(tmp_path: Path) -> None:
    folder = tiny_onnx.write(tmp_path / "a", "sense_voice")
    languages = {
        language: model_of(folder, language=language).arguments["language"] for language in ("zh-en", "yue", "de")
    }
    assert languages == {"zh-en": "auto", "yue": "yue", "de": "auto"}


def test_a_transducer_is_three_files(tmp_path: Path) -> None:
    folder = tiny_onnx.write(tmp_path / "a", "nemo", name="encoder-epoch-99-avg-1.onnx")
    for part in ("decoder-epoch-99-avg-1.onnx", "joiner-epoch-99-avg-1.onnx", "joiner-epoch-99-avg-1.int8.onnx"):
        (folder / part).write_bytes((folder / "encoder-epoch-99-avg-1.onnx").read_bytes())
    model = model_of(folder, language="zh")
    assert model.constructor == "from_transducer"
    assert model.arguments["joiner"].endswith("joiner-epoch-99-avg-1.onnx")
    assert model.arguments["model_type"] == "nemo_transducer"


@pytest.mark.parametrize("broken", ["no tokens", "no model", "no metadata", "not onnx", "cut off", "another family"])
def test_a_broken_folder_is_an_error_and_not_the_end_of_the_process(
    broken: str, settings: Settings, tmp_path: Path
) -> None:
    folder = tiny_onnx.write(tmp_path / "a", "nemo")
    file = folder / "model.onnx"
    if broken == "no tokens":
        (folder / "tokens.txt").unlink()
    elif broken == "no model":
        file.unlink()
    elif broken == "not onnx":
        file.write_text("version https://git-lfs.github.com/spec/v1\n", "utf-8")
    elif broken == "cut off":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        model = onnx.load(file)
        del model.metadata_props[:]
        if broken == "another family":  # sherpa-onnx ends the process for want of the family's metadata
            onnx.helper.set_model_props(model, {"model_type": "paraformer"})
        onnx.save(model, file)
    with pytest.raises(ModelError) as error:
        opened(folder, settings)
    assert error.value.hint
    assert str(folder) in error.value.message


def test_metadata_is_read_without_the_weights(tmp_path: Path) -> None:
    file = tiny_onnx.write(tmp_path / "a", "sense_voice") / "model.onnx"
    assert metadata_of(file) == {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def test_a_request_names_a_folder_that_is_there(tmp_path: Path) -> None:
    sources = [Source("a.wav", "file:///a.wav", "k")]
    folder = tiny_onnx.write(tmp_path / "a", "nemo")
    for name in (f"sherpa:{folder}", f"perturbed+sherpa:{folder}"):
        assert make_batch(sources, BatchOptions(validator=name), load_settings()).validator == name
    for name in ("sherpa:", "sherpa:/no/such/folder", f"sherpa:{folder}/model.onnx"):
        with pytest.raises(BadRequest, match="no such folder"):
            make_batch(sources, BatchOptions(validator=name), load_settings())


def test_doctor_lets_it_transcribe_a_golden_clip(settings: Settings, tmp_path: Path) -> None:
    folder = tiny_onnx.write(tmp_path / "a", "zipformer")
    assert "zipformer2_ctc, transcribes" in asyncio.run(describe(f"sherpa:{folder}", settings))
