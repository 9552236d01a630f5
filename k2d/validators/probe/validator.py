"""A CTC probe as a validator: it works on the output of the teacher's encoder, which is already in memory."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from k2d.errors import BadRequest, ModelError
from k2d.inference.transcriber import Transcriber
from k2d.schema import Chunk, Hypothesis, Samples, Window
from k2d.validators.names import PROBE
from k2d.validators.probe import ctc
from k2d.validators.probe.network import Encoded, Probe, frames_of, load
from k2d.validators.protocol import AS_IS, Opening, Validator

KIND: Final = "probe"
VERSION: Final = 1  # of what is made of a probe's posteriors; part of the hypotheses' key


@runtime_checkable
class EncoderInside(Protocol):
    """A transcriber whose encoder's output can be had: one in this process."""

    async def encode(self, window: Window) -> Any:
        """Shape (1500, width), float16."""
        ...


async def open_validator(name: str, opening: Opening) -> Validator:
    """Open the probe that the lake has under the digest in `name`.

    Raises:
        NotFound: there is none.
        BadRequest, ModelError: as `ProbeValidator`.
    """
    digest = name.removeprefix(PROBE)
    return ProbeValidator(load(opening.lake.probes.get(digest)), digest, teacher=opening.teacher)


class ProbeValidator:
    """One hypothesis for each chunk: the phonemes that the probe recognises, and the log-probability of each segment's."""

    def __init__(self, probe: Probe, digest: str, *, teacher: Transcriber) -> None:
        """Put a probe beside its teacher.

        Raises:
            BadRequest: the teacher is on a server, which gives text and not its encoder's output.
            ModelError: the probe was trained on another teacher.
        """
        if not isinstance(teacher, EncoderInside):
            raise BadRequest(
                "a probe needs the teacher's encoder in the worker's process, and the teacher is on a server",
                hint="set K2D_TEACHER to a model instead of an address, or leave the probe out of K2D_VALIDATOR",
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
        """What of the probe goes into the key of its hypotheses."""
        return (KIND, VERSION, self._digest, self._fingerprint)

    def wants(self, chunk: Chunk, before: Sequence[Hypothesis]) -> bool:
        """Every chunk: it costs one encoder pass."""
        return True

    async def validate(
        self, chunk: Chunk, samples: Samples, before: Sequence[Hypothesis], *, recording_id: str
    ) -> tuple[Hypothesis, ...]:
        """Return its hypothesis of a chunk; samples have shape (n,), exactly the label's span. `before` does not matter.

        Raises:
            ModelError: the engine failed.
        """
        encoded = await self._encoder.encode(Window(samples))
        return (await asyncio.to_thread(self._hypothesis, chunk, encoded[: frames_of(len(samples))], recording_id),)

    def _hypothesis(self, chunk: Chunk, encoded: Encoded, recording_id: str) -> Hypothesis:
        return probe_hypothesis(
            self._probe, [segment.text for segment in chunk.segments], encoded, recording_id, name=self.name
        )


def probe_hypothesis(
    probe: Probe, texts: Sequence[str], encoded: Encoded, recording_id: str, *, name: str
) -> Hypothesis:
    """Return a probe's hypothesis of a chunk's segments, from the encoder's output for the chunk, shape (frames, width).

    Log-probabilities are those of whole paths through the chunk, divided by their units: a unit that the probe
    recognises and the text lacks costs as much as one the text has and the probe does not recognise. Rounded to four
    decimals, which hold on any machine.
    """
    posteriors = probe.posteriors(encoded, recording_id)
    best = ctc.best_path(posteriors)
    segments = [probe.read(text) for text in texts]
    owned = ctc.align(posteriors, [unit for segment in segments for unit in segment])
    logprobs, done = [], 0
    for segment in segments:
        part = owned[done : done + len(segment)]
        done += len(segment)
        logprobs.append(_rounded(part.mean() if len(part) else ctc.FLOOR))  # an empty label has no support
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
