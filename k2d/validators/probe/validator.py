"""A CTC probe as a validator. It uses the encoder of the teacher that is in memory already."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from k2d.errors import BadRequest, ModelError
from k2d.inference.transcriber import Transcriber
from k2d.schema import Chunk, Hypothesis, Samples, Window
from k2d.validators.names import PROBE
from k2d.validators.probe import ctc
from k2d.validators.probe.network import EncoderFrames, Probe, frames_of, load
from k2d.validators.protocol import AS_IS, Validator, ValidatorContext

KIND: Final = "probe"
VERSION: Final = 1  # of how hypotheses are made from a probe's posteriors; part of their key


@runtime_checkable
class EncodingTranscriber(Protocol):
    """A transcriber that also returns its encoder's output: one in this process."""

    async def encode(self, window: Window) -> Any:
        """The encoder's output for the window, shape (1500, width), float16."""
        ...


async def open_validator(name: str, context: ValidatorContext) -> Validator:
    """Open the probe with the digest in `name` from the lake.

    Raises:
        NotFound: the lake does not have it.
        BadRequest, ModelError: as `ProbeValidator`.
    """
    digest = name.removeprefix(PROBE)
    return ProbeValidator(load(context.lake.probes.get(digest)), digest, teacher=context.teacher)


class ProbeValidator:
    """A validator whose hypothesis is what a probe recognises: phonemes, and log-probabilities of the label's."""

    def __init__(self, probe: Probe, digest: str, *, teacher: Transcriber) -> None:
        """A validator from a probe and the teacher it was trained for.

        Raises:
            BadRequest: the teacher is on a server, which does not return its encoder's output.
            ModelError: the probe was trained for another teacher.
        """
        if not isinstance(teacher, EncodingTranscriber):
            raise BadRequest(
                "a probe needs the teacher's encoder in the worker's process, and the teacher is on a server",
                hint="set K2D_TEACHER to a model instead of an address, or leave the probe out of K2D_VALIDATOR",
            )
        trained_on = probe.about.get("teacher_digest")
        if trained_on != teacher.model.digest:
            raise ModelError(
                f"the probe {digest} was trained for {probe.about.get('teacher')}; the teacher has other weights",
                hint="train one for this teacher with `k2d probe`",
            )
        self._probe = probe
        self._digest = digest
        self._encoder: EncodingTranscriber = teacher
        self._fingerprint = teacher.model.fingerprint

    @property
    def name(self) -> str:
        return f"{KIND}:{self._digest}"

    @property
    def key(self) -> tuple[Any, ...]:
        """Everything that can change its hypotheses."""
        return (KIND, VERSION, self._digest, self._fingerprint)

    def wants(self, chunk: Chunk, before: Sequence[Hypothesis]) -> bool:
        """True for every chunk: a chunk takes only one encoder pass."""
        return True

    async def validate(
        self, chunk: Chunk, samples: Samples, before: Sequence[Hypothesis], *, recording_id: str
    ) -> tuple[Hypothesis, ...]:
        """Return its hypothesis of a chunk; samples have shape (n,), cut to the label's span. `before` is not used.

        Raises:
            ModelError: the engine failed.
        """
        encoded = await self._encoder.encode(Window(samples))
        return (await asyncio.to_thread(self._hypothesis, chunk, encoded[: frames_of(len(samples))], recording_id),)

    def _hypothesis(self, chunk: Chunk, encoded: EncoderFrames, recording_id: str) -> Hypothesis:
        return probe_hypothesis(
            self._probe, [segment.text for segment in chunk.segments], encoded, recording_id, name=self.name
        )


def probe_hypothesis(
    probe: Probe, texts: Sequence[str], encoded: EncoderFrames, recording_id: str, *, name: str
) -> Hypothesis:
    """A probe's hypothesis of a chunk.

    Log-probabilities are those of whole paths through the chunk, divided by their numbers of units. So a unit that the
    probe recognises and the text lacks costs as much as one that the text has and the probe does not recognise. They
    are rounded to four decimals, so that they are the same on every machine.

    Args:
        texts: of the chunk's segments.
        encoded: the encoder's output for the chunk, shape (frames, width).
        name: of the validator.
    """
    posteriors = probe.posteriors(encoded, recording_id)
    best = ctc.best_path(posteriors)
    segments = [probe.read(text) for text in texts]
    attributed = ctc.align(posteriors, [unit for segment in segments for unit in segment])
    logprobs, done = [], 0
    for segment in segments:
        part = attributed[done : done + len(segment)]
        done += len(segment)
        logprobs.append(_rounded(part.mean() if len(part) else ctc.FLOOR))  # nothing supports an empty label
    return Hypothesis(
        validator=name,
        perturbation=AS_IS,
        text=" ".join(probe.units[unit] for unit in best.units),
        avg_logprob=_rounded(best.logprob / max(1, len(best.units))),
        forced_logprobs=tuple(logprobs),
        is_phonemes=True,
    )


def _rounded(value: float) -> float:
    return float(np.float32(round(float(value), 4)))
