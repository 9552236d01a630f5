"""Decodes a chunk again, without previous text, when every validator loops or most disagree with the label.

The teacher gets the chunk's audio cut to the label, which it did not have when it wrote the label. So a label is not
kept only because no validator could check it.
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
from k2d.validators.protocol import Validator, ValidatorContext, greedy_options

VERSION: Final = 1  # increase it when a change of the rule, the decodes or evidence selects other chunks

# A label whose hypotheses differ from it by more than this is unresolved: a little more than twice the difference
# between two decodes of clean speech (docs/method.md: a median distance of 0.09 to unseen labels).
UNRESOLVED_DISTANCE: Final = 0.2
FALLBACK: Final = "fallback"


async def open_validator(name: str, context: ValidatorContext) -> Validator:
    """Open the second decode. The validators before it decide which labels are unresolved."""
    before = tuple(validator.key for validator in context.before)
    return SecondDecode(context.teacher, context.language, before, context.short_context)


@dataclass(frozen=True, slots=True)
class SecondDecode:
    """The teacher with two other sets of options: the label's main language, and rising temperatures.

    The second starts above temperature 0, which would repeat the label. A second decode has no forced
    log-probabilities, so that their mean does not depend on whether a label was decoded again.
    """

    transcriber: Transcriber
    language: str  # of the batch
    before: tuple[Any, ...]  # keys of the validators before it, whose hypotheses decide which labels are unresolved
    short_context: bool = False

    @property
    def name(self) -> str:
        return f"{SECOND_DECODE}:{self.transcriber.model.reference}"

    @property
    def key(self) -> tuple[Any, ...]:
        decodes = (self._in_language("zh"), self._in_language("en"), self._at_rising_temperatures())
        rule = (UNRESOLVED_DISTANCE, CONTRADICTION, REPETITION_MAX)
        return (SECOND_DECODE, VERSION, self.transcriber.model.fingerprint, decodes, rule, self.before)

    def wants(self, chunk: Chunk, before: Sequence[Hypothesis]) -> bool:
        return unresolved(weigh(chunk.segments, before).evidence)

    async def validate(
        self, chunk: Chunk, samples: Samples, before: Sequence[Hypothesis], *, recording_id: str
    ) -> tuple[Hypothesis, ...]:
        evidence = weigh(chunk.segments, before).evidence
        language = "zh" if evidence.zh_tokens >= evidence.en_tokens else "en"
        decodes = {f"language {language}": self._in_language(language), FALLBACK: self._at_rising_temperatures()}
        window = Window(samples)
        results = await asyncio.gather(*(self.transcriber.transcribe(window, options) for options in decodes.values()))
        return tuple(
            Hypothesis(validator=self.name, perturbation=decode, text=result.text, avg_logprob=result.avg_logprob)
            for decode, result in zip(decodes, results, strict=True)
        )

    def _in_language(self, language: str) -> DecodeOptions:
        return greedy_options(language, short_context=self.short_context)

    def _at_rising_temperatures(self) -> DecodeOptions:
        return DecodeOptions(
            language=self.language,
            temperatures=DecodeOptions().temperatures[1:],
            without_timestamps=True,
            short_context=self.short_context,
        )


def unresolved(evidence: Evidence) -> bool:
    """Whether the hypotheses do not decide about a label.

    So it is if all of them loop, if their median is far from the label, or if they contradict one another.
    """
    if not evidence.phonemes:
        return False  # the label is empty: there is nothing to confirm
    all_loop = evidence.hypothesis_repetition > REPETITION_MAX
    contradiction = evidence.disagreement_most - evidence.disagreement_least
    return all_loop or evidence.disagreement_middle > UNRESOLVED_DISTANCE or contradiction > CONTRADICTION
