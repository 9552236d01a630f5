"""Models that stay in memory between batches: which are taken, which are closed, and when one is loaded anew."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from weights import BASE, base, cache

from k2d.errors import ModelError
from k2d.inference.golden import clips
from k2d.inference.model_cache import ModelCache
from k2d.inference.open import open_transcriber
from k2d.schema import DecodeOptions, Samples, Window, WindowResult
from k2d.settings import Settings


@dataclass(eq=False)
class Weights:
    """A model that notes whether it was closed."""

    name: str
    is_closed: bool = False

    def close(self) -> None:
        self.is_closed = True


def opened(models: ModelCache, name: str, key: str = "int8") -> Weights:
    return models.open(name, key=(key,), load=lambda: Weights(name))


def test_a_model_that_was_given_back_is_taken_again() -> None:
    models = ModelCache()
    first = opened(models, "a")
    models.give_back(first)
    assert opened(models, "a") is first
    assert (models.loads, first.is_closed) == (1, False)


def test_a_model_with_other_settings_replaces_it() -> None:
    models = ModelCache()
    first = opened(models, "a", "int8")
    models.give_back(first)
    second = opened(models, "a", "float32")
    assert second is not first
    assert (models.loads, first.is_closed, second.is_closed) == (2, True, False)


def test_what_the_next_batch_needs_is_kept_and_the_rest_closed() -> None:
    models = ModelCache()
    teacher, validator, in_use = opened(models, "teacher"), opened(models, "validator"), opened(models, "other")
    models.give_back(teacher)
    models.give_back(validator)
    models.keep_only(["teacher", "third"])
    assert (teacher.is_closed, validator.is_closed, in_use.is_closed) == (False, True, False)
    models.give_back(in_use)
    models.close()
    assert (teacher.is_closed, in_use.is_closed) == (True, True)
    models.close()


def test_a_model_is_lent_to_one_at_a_time() -> None:
    models = ModelCache()
    first, second = opened(models, "a"), opened(models, "a")
    assert second is not first
    models.give_back(second)
    assert (first.is_closed, second.is_closed) == (False, True)
    models.give_back(first)
    assert not first.is_closed


def test_a_model_that_cannot_be_loaded_leaves_nothing() -> None:
    models = ModelCache()

    def fail() -> Weights:
        raise ModelError("damaged")

    with pytest.raises(ModelError):
        models.open("a", key=(), load=fail)
    assert models.loads == 0
    assert opened(models, "a").name == "a"


# ---- real weights ---------------------------------------------------------------------------------------------------


def transcribed(settings: Settings, models: ModelCache, teacher: str, samples: Samples) -> WindowResult:
    """One run with an event loop of its own, as a job's."""

    async def run() -> WindowResult:
        transcriber = await open_transcriber(teacher, settings, models=models)
        try:
            return await transcriber.transcribe(Window(samples), DecodeOptions())
        finally:
            await transcriber.close()

    return asyncio.run(run())


@pytest.mark.integration
def test_an_engine_outlasts_the_event_loop_and_writes_the_same(tmp_path: Path) -> None:
    """It is loaded anew only when settings or files are others."""
    base()
    settings = Settings(cache=cache(), threads=1, _env_file=None)
    samples = clips()[0].samples
    models = ModelCache()
    first = transcribed(settings, models, BASE, samples)
    assert first.text
    assert transcribed(settings, models, f"local:{BASE}", samples) == first
    assert models.loads == 1
    transcribed(settings.model_copy(update={"threads": 2}), models, BASE, samples)
    assert models.loads == 2

    folder = shutil.copytree(base().path, tmp_path / "model")
    transcribed(settings, models, str(folder), samples)
    assert models.loads == 3
    (folder / "config.json").write_text((folder / "config.json").read_text("utf-8") + "\n", "utf-8")
    transcribed(settings, models, str(folder), samples)
    assert models.loads == 4
    models.close()
