"""The probe in a panel: it hears a chunk through the teacher's encoder, which is already in memory."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from k2d.errors import BadRequest, ModelError
from k2d.inference.transcriber import Transcriber
from k2d.schema import Chunk, Opinion, Samples, Window
from k2d.store import Lake
from k2d.validators.probe import ctc
from k2d.validators.probe.network import Encoded, Probe, frames_of, load

KIND = "probe"
VIEW = "as is"
HEARING_VERSION = 1  # of what is made of a probe's posteriors; part of the opinions' key


@runtime_checkable
class EncoderInside(Protocol):
    """A transcriber whose encoder's output can be had: one in this process."""

    async def encode(self, window: Window) -> Any:
        """Shape (1500, width), float16."""
        ...


class ProbeListener:
    """One opinion for each chunk: the phonemes that the probe hears, and how likely it finds each segment's."""

    def __init__(self, probe: Probe, digest: str, *, teacher: Transcriber) -> None:
        """Put a probe beside its teacher.

        Raises:
            BadRequest: the teacher is on a server, which gives text and not its encoder's output.
            ModelError: the probe was trained on another teacher.
        """
        if not isinstance(teacher, EncoderInside):
            raise BadRequest(
                "a probe needs the teacher's encoder in the worker's process, and the teacher is on a server",
                hint="set K2D_TEACHER to a model instead of an address, or leave the probe out of the panel",
            )
        trained_on = probe.about.get("teacher_digest")
        if trained_on != teacher.model.digest:
            raise ModelError(
                f"the probe {digest} was trained on {probe.about.get('teacher')}, the teacher is other weights",
                hint="`k2d probe` trains one on this teacher's labels",
            )
        self._probe = probe
        self._digest = digest
        self._encoder: EncoderInside = teacher
        self._fingerprint = teacher.model.fingerprint

    @property
    def name(self) -> str:
        return f"{KIND}:{self._digest}"

    @property
    def key(self) -> tuple[Any, ...]:
        """What of the probe goes into the key of its opinions."""
        return (KIND, HEARING_VERSION, self._digest, self._fingerprint)

    def wants(self, chunk: Chunk, before: Sequence[Opinion]) -> bool:
        """Every chunk: it costs one encoder pass."""
        return True

    async def hear(
        self, chunk: Chunk, samples: Samples, before: Sequence[Opinion], *, recording_id: str
    ) -> tuple[Opinion, ...]:
        """Hear the chunk's audio (shape (n,), exactly the label's span); `before` does not matter to it.

        Raises:
            ModelError: the engine failed.
        """
        encoded = await self._encoder.encode(Window(samples))
        return (await asyncio.to_thread(self._judge, chunk, encoded[: frames_of(len(samples))], recording_id),)

    def _judge(self, chunk: Chunk, encoded: Encoded, recording_id: str) -> Opinion:
        return judge(self._probe, [segment.text for segment in chunk.segments], encoded, recording_id, name=self.name)


def judge(probe: Probe, texts: Sequence[str], encoded: Encoded, recording_id: str, *, name: str) -> Opinion:
    """A probe's opinion of a chunk's segments, from the encoder's output for the chunk, shape (frames, width).

    Log-probabilities are those of whole paths through the chunk, a unit: what a text does not say and the probe hears
    costs as much as what it says and the probe does not hear. Rounded to four decimals, which hold on any machine.
    """
    posteriors = probe.posteriors(encoded, recording_id)
    heard = ctc.best(posteriors)
    segments = [probe.read(text) for text in texts]
    owned = ctc.align(posteriors, [unit for segment in segments for unit in segment])
    scores, done = [], 0
    for segment in segments:
        part = owned[done : done + len(segment)]
        done += len(segment)
        scores.append(_rounded(part.mean() if len(part) else ctc.FLOOR))  # a label of nothing finds no support
    return Opinion(
        listener=name,
        view=VIEW,
        text=" ".join(probe.units[unit] for unit in heard.units),
        avg_logprob=_rounded(heard.logprob / max(1, len(heard.units))),
        scores=tuple(scores),
        is_phonemes=True,
    )


def open_probe(digest: str, *, lake: Lake, teacher: Transcriber) -> ProbeListener:
    """The probe that the lake has under this digest, as a listener.

    Raises:
        NotFound: there is none.
        BadRequest, ModelError: as `ProbeListener`.
    """
    return ProbeListener(load(lake.listener(digest)), digest, teacher=teacher)


def _rounded(value: float) -> float:
    return float(np.float32(round(float(value), 4)))
