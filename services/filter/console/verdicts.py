"""Verdicts, reasons and evidence in a sentence. Every text here has a translation; a test looks each up."""

import re
from collections.abc import Mapping
from typing import Final

from k2d.documents import ChunkDetail
from k2d.filtering.policy import RULES, SHORT_NAMES, Policy
from k2d.schema import Reason, Status
from services.filter.console.formats import beside
from services.filter.console.words import Words

REASONS: Final[Mapping[Reason, str]] = {
    Reason.AGREEMENT: "the validators agree with the label closely enough",
    Reason.HOMOPHONE: "the validators differ from the label only in the writing of what sounds the same",
    Reason.VALIDATOR_REPETITION: "a validator repeats itself, so that its text confirms nothing",
    Reason.EMPTY: "no word of the label is left after normalisation",
    Reason.TEACHER_REPETITION: "the label repeats itself",
    Reason.HALLUCINATION_PHRASE: "the label is a known hallucination phrase",
    Reason.PROMPT_ECHO: "the label repeats the prompt that the teacher was given",
    Reason.LANGUAGE_FLIP: "the label is in another language than the validators' texts",
    Reason.SCRIPT_MIX: "too much of the label is neither Chinese nor Latin script",
    Reason.SPEECH_RATE: "the label has more or fewer sounds than speech of this length",
    Reason.UNCONFIRMED: "the validators confirm almost nothing of the label",
    Reason.DISAGREEMENT: "the validators transcribe it differently",
    Reason.SUBSTITUTION: "the validators have other words in place of the label's",
    Reason.DELETION: "the label seems to lack words that were said",
    Reason.INSERTION: "the label seems to have words that were not said",
    Reason.LOW_CONFIDENCE: "what weighs most is that the models find the label improbable",
    Reason.UNRESOLVED: "the validators contradict one another",
    Reason.RESCORED: "its text is a second decode's, and this policy takes the teacher's own only",
}
_SECOND_DECODE: Final = re.compile(r"second decode, beam (\d+)")  # as k2d.labeling.rescore writes it
EVIDENCE: Final[Mapping[str, str]] = {
    "bias": "before any evidence",
    "disagreement": "validators hear other words",
    "homophones": "sounds alike, written differently",
    "expected_token_error": "validators expect wrong tokens",
    "probe_nll": "the probe finds it improbable",
    "forced_logprob": "validators find it improbable",
    "avg_logprob": "the teacher was unsure",
    "temperature": "the teacher needed a higher temperature",
    "no_speech_prob": "the teacher heard no speech",
    "speech_rate": "unusual speech rate",
}


def sentence(chunk: ChunkDetail, policy: Policy, words: Words) -> str:
    """The verdict on a chunk and its reason.

    sentence(chunk, DEFAULT, Words("en"))  # "Kept: its risk of 0.070 is at most α = 0.3, and the validators agree …"
    """
    _ = words
    reason = _(REASONS.get(chunk.reason, chunk.reason.replace("_", " ")))
    value = chunk.distances[policy.metric]
    number, alpha = beside(value or 0.0, policy.alpha)
    values = {"measure": _(SHORT_NAMES[policy.metric]), "value": number, "alpha": alpha}
    if chunk.verdict is Status.ACCEPTED:
        return _("Kept: its {measure} of {value} is at most α = {alpha}; {reason}.", reason=reason, **values)
    if chunk.reason in RULES:
        return _("Rejected by a rule, whatever α is: {reason}.", reason=reason)
    return _("Rejected: its {measure} of {value} is above α = {alpha}; {reason}.", reason=reason, **values)


def origin_name(origin: str, words: Words) -> str:
    """Where a label's text comes from: origin_name("second decode, beam 5", Words("zh-Hant")) == "重新解碼，束寬 5"."""
    found = _SECOND_DECODE.fullmatch(origin)
    return words("second decode, beam {beams}", beams=found[1]) if found else words(origin)


def evidence_name(name: str) -> str:
    """What a piece of evidence is called, in English; its own name if it has no other."""
    return EVIDENCE.get(name, name.replace("_", " "))
