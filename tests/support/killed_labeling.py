"""Labels a recording with real weights, and kills itself in place of the answer to the n-th question of a stage.

python killed_labeling.py STORE AUDIO label|validate N
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from weights import BASE, cache

from k2d import sources
from k2d.documents import BatchOptions
from k2d.labeling import journal
from k2d.labeling.open_models import open_models
from k2d.labeling.recording import Labeler
from k2d.labeling.request import make_batch
from k2d.schema import DecodeOptions, ModelInfo, RecordingResult, TextScore, Window, WindowResult
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators.protocol import FirstValidator, Validators


class Asked:
    """Counts the questions of each stage; `kill_at` has the number at which this process is killed."""

    def __init__(self, **kill_at: int) -> None:
        self.counts = Counter[str]()
        self._kill_at = kill_at

    def count(self, stage: str) -> None:
        self.counts[stage] += 1
        if self.counts[stage] == self._kill_at.get(stage):
            os.kill(os.getpid(), signal.SIGKILL)


class CountedTeacher:
    def __init__(self, teacher: Any, asked: Asked) -> None:
        self._teacher, self._asked = teacher, asked

    @property
    def model(self) -> ModelInfo:
        return self._teacher.model  # type: ignore[no-any-return]

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        self._asked.count("label")
        return await self._teacher.transcribe(window, options)  # type: ignore[no-any-return]

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        self._asked.count("label")
        return await self._teacher.score(window, text, options)  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Closed by who opened it."""


class CountedValidator:
    def __init__(self, validator: FirstValidator, asked: Asked) -> None:
        self._validator, self._asked = validator, asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._validator, name)

    async def validate(self, *args: Any, **options: Any) -> Any:
        self._asked.count("validate")
        return await self._validator.validate(*args, **options)


def label(store: Path, audio: Path, asked: Asked) -> RecordingResult:
    """Label and validate the recording."""
    lake = Lake(str(store))
    options = {"teacher": BASE, "cache": cache(), "beam_size": 1, "validator": "perturbed"}
    settings = Settings(_env_file=None, store=str(store), concurrency=1, batch_size=1, **options)
    batch = make_batch([sources.from_path(audio)], BatchOptions(), settings, trusted=True)

    async def run() -> RecordingResult:
        async with open_models(settings, batch, lake) as (teacher, validators):
            labeler = Labeler(
                lake,
                teacher=CountedTeacher(teacher, asked),
                validators=Validators(CountedValidator(validators.first, asked), ()),  # type: ignore[arg-type]
                batch=batch,
                settings=settings,
            )
            return await labeler.run(0)

    return asyncio.run(run())


if __name__ == "__main__":
    journal.STORED_EVERY_S = 0.0  # type: ignore[misc]
    label(Path(sys.argv[1]), Path(sys.argv[2]), Asked(**{sys.argv[3]: int(sys.argv[4])}))
