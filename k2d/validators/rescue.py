"""Rescue: another decode of a chunk that the opinions so far leave unresolved.

Nothing is trusted because it could not be checked: where every opinion loops, or most contradict the label, the
teacher hears the chunk again, cut to its label and without previous text, as it did not hear it when it wrote it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from k2d.filtering.evidence import weigh
from k2d.filtering.policy.decide import CONTRADICTION
from k2d.inference.transcriber import Transcriber
from k2d.schema import Chunk, DecodeOptions, Evidence, Opinion, Samples, Window
from k2d.text.repetition import REPETITION_MAX

RESCUE_VERSION = 1  # raise it when the rule, the decodes, or evidence itself choose otherwise

# Opinions that differ this much from a label call it into question: a little more than twice what two decodes of clean
# speech differ in (method notes, section 7: a median distance of 0.09 to unseen labels).
DOUBTFUL: Final = 0.2
FALLBACK = "fallback"


@dataclass(frozen=True, slots=True)
class RescueListener:
    """The teacher again: prompted with the label's main language, then as before but at rising temperatures.

    Temperature 0 is left out of the second decode: it would repeat the one that is in doubt. There are no scores, so
    that a label's score means the same whether it was rescued or not.
    """

    transcriber: Transcriber
    language: str  # of the batch
    before: tuple[Any, ...]  # keys of the listeners before it: they say what is unresolved

    @property
    def name(self) -> str:
        return f"rescue:{self.transcriber.model.reference}"

    @property
    def key(self) -> tuple[Any, ...]:
        decodes = (self._prompted("zh"), self._prompted("en"), self._heated())
        rule = (DOUBTFUL, CONTRADICTION, REPETITION_MAX)
        return ("rescue", RESCUE_VERSION, self.transcriber.model.fingerprint, decodes, rule, self.before)

    def wants(self, chunk: Chunk, before: Sequence[Opinion]) -> bool:
        return unresolved(weigh(chunk.segments, before).evidence)

    async def hear(
        self, chunk: Chunk, samples: Samples, before: Sequence[Opinion], *, recording_id: str
    ) -> tuple[Opinion, ...]:
        evidence = weigh(chunk.segments, before).evidence
        language = "zh" if evidence.zh_tokens >= evidence.en_tokens else "en"
        decodes = {f"language {language}": self._prompted(language), FALLBACK: self._heated()}
        window = Window(samples)
        results = await asyncio.gather(*(self.transcriber.transcribe(window, each) for each in decodes.values()))
        return tuple(
            Opinion(listener=self.name, view=view, text=result.text, avg_logprob=result.avg_logprob)
            for view, result in zip(decodes, results, strict=True)
        )

    def _prompted(self, language: str) -> DecodeOptions:
        return DecodeOptions(language=language, temperatures=(0.0,), without_timestamps=True, no_speech_threshold=None)

    def _heated(self) -> DecodeOptions:
        temperatures = DecodeOptions().temperatures[1:]
        return DecodeOptions(language=self.language, temperatures=temperatures, without_timestamps=True)


def unresolved(evidence: Evidence) -> bool:
    """Whether the opinions leave a label neither confirmed nor plainly empty.

    That is so where all of them loop, where their median is far from the label, or where they contradict one another.
    """
    if not evidence.units:
        return False  # nothing is written, so nothing can be confirmed
    all_loop = evidence.opinion_repetition > REPETITION_MAX
    apart = evidence.disagreement_most - evidence.disagreement_least
    return all_loop or evidence.disagreement_middle > DOUBTFUL or apart > CONTRADICTION
