"""Decodes a chunk again, without previous text, when every validator loops or most disagree with the label.

The teacher decodes the chunk cut to its label, as it did not when it wrote the label, so that no label is kept only
because nobody could check it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from k2d.filtering.evidence import weigh
from k2d.filtering.policy.decide import CONTRADICTION
from k2d.inference.transcriber import Transcriber
from k2d.schema import Chunk, DecodeOptions, Evidence, Hypothesis, Samples, Window
from k2d.text.repetition import REPETITION_MAX
from k2d.validators.names import SECOND_DECODE
from k2d.validators.protocol import Opening, Validator

VERSION: Final = 1  # raise it when the rule, the decodes, or evidence itself choose otherwise

# Hypotheses that differ this much from a label call it into question: a little more than twice what two decodes of
# clean speech differ in (docs/method.md: a median distance of 0.09 to unseen labels).
DOUBTFUL: Final = 0.2
FALLBACK: Final = "fallback"


async def open_validator(name: str, opening: Opening) -> Validator:
    """Open the second decode; the validators before it say which labels are unresolved."""
    return SecondDecode(opening.teacher, opening.language, tuple(validator.key for validator in opening.before))


@dataclass(frozen=True, slots=True)
class SecondDecode:
    """The teacher again: prompted with the label's main language, then as before but at rising temperatures.

    Temperature 0 is left out of the second of these decodes: it would repeat the one in question. It gives no forced
    log-probabilities, so that a label's mean the same whether it was decoded again or not.
    """

    transcriber: Transcriber
    language: str  # of the batch
    before: tuple[Any, ...]  # keys of the validators before it: their hypotheses say what is unresolved

    @property
    def name(self) -> str:
        return f"{SECOND_DECODE}:{self.transcriber.model.reference}"

    @property
    def key(self) -> tuple[Any, ...]:
        decodes = (self._prompted("zh"), self._prompted("en"), self._heated())
        rule = (DOUBTFUL, CONTRADICTION, REPETITION_MAX)
        return (SECOND_DECODE, VERSION, self.transcriber.model.fingerprint, decodes, rule, self.before)

    def wants(self, chunk: Chunk, before: Sequence[Hypothesis]) -> bool:
        return unresolved(weigh(chunk.segments, before).evidence)

    async def validate(
        self, chunk: Chunk, samples: Samples, before: Sequence[Hypothesis], *, recording_id: str
    ) -> tuple[Hypothesis, ...]:
        evidence = weigh(chunk.segments, before).evidence
        language = "zh" if evidence.zh_tokens >= evidence.en_tokens else "en"
        decodes = {f"language {language}": self._prompted(language), FALLBACK: self._heated()}
        window = Window(samples)
        results = await asyncio.gather(*(self.transcriber.transcribe(window, each) for each in decodes.values()))
        return tuple(
            Hypothesis(validator=self.name, perturbation=decode, text=result.text, avg_logprob=result.avg_logprob)
            for decode, result in zip(decodes, results, strict=True)
        )

    def _prompted(self, language: str) -> DecodeOptions:
        return DecodeOptions(language=language, temperatures=(0.0,), without_timestamps=True, no_speech_threshold=None)

    def _heated(self) -> DecodeOptions:
        temperatures = DecodeOptions().temperatures[1:]
        return DecodeOptions(language=self.language, temperatures=temperatures, without_timestamps=True)


def unresolved(evidence: Evidence) -> bool:
    """Whether the hypotheses leave a label neither confirmed nor plainly empty.

    That is so where all of them loop, where their median is far from the label, or where they contradict one another.
    """
    if not evidence.phonemes:
        return False  # nothing is written, so nothing can be confirmed
    all_loop = evidence.hypothesis_repetition > REPETITION_MAX
    apart = evidence.disagreement_most - evidence.disagreement_least
    return all_loop or evidence.disagreement_middle > DOUBTFUL or apart > CONTRADICTION
