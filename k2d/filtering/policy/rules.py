"""The rules that reject a label whatever its distance or risk, each described once. Pure, over columns of facts.

To add one: a member of `k2d.schema.Reason`, a field of `Policy` that switches it on, and its entry in RULES.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.filtering.policy.columns import TOKEN_COLUMNS, evidence_tokens, label_tokens
from k2d.filtering.policy.document import Policy
from k2d.filtering.policy.metrics import Columns
from k2d.filtering.policy.risk import QUORUM_COLUMNS
from k2d.schema import Reason
from k2d.text.repetition import NGRAM
from k2d.wording import counted

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, for the policies that have it on."""

    is_on: Callable[[Policy], bool]
    columns: Callable[[Policy], tuple[str, ...]]  # the columns that `broken` reads
    broken: Callable[[Policy, Columns], npt.NDArray[Any]]  # which rows it rejects, shape (rows,)
    words: Callable[[Policy], str]  # "the label is rejected when …"


def broken_rules(policy: Policy, columns: Columns) -> dict[Reason, Flags]:
    """Which rows each of the policy's rules rejects, whatever the metric; shape (rows,) each, in the order of RULES."""
    return {reason: rule.broken(policy, columns) for reason, rule in rules_of(policy).items()}


def rules_of(policy: Policy) -> dict[Reason, Rule]:
    """The rules that a policy has on, in the order of RULES."""
    return {reason: rule for reason, rule in RULES.items() if rule.is_on(policy)}


def _loops(policy: Policy, columns: Columns) -> npt.NDArray[Any]:
    loops = columns["teacher_repetition"] > policy.repetition_max
    return loops if policy.loops_max is None else loops | (columns["loops"] > policy.loops_max)


def _loop_words(policy: Policy) -> str:
    words = f"it loops: some {NGRAM} characters occur more than {counted(policy.repetition_max, 'time')}"
    return (
        words
        if policy.loops_max is None
        else f"{words}, or it says the same more than {counted(policy.loops_max, 'time')} and more than speech does"
    )


def _rescored(policy: Policy, columns: Columns) -> npt.NDArray[Any]:
    if "is_rescored" in columns:
        return columns["is_rescored"].astype(np.bool_)
    return np.zeros(len(columns["teacher_repetition"]), np.bool_)  # distances alone: of the teacher's own text


def _speech_rate(policy: Policy, columns: Columns) -> npt.NDArray[Any]:
    phonemes, duration_s = columns["phonemes"], columns["duration_s"]
    broken = np.zeros(len(phonemes), np.bool_)
    if policy.min_phonemes_per_s is not None:
        broken |= phonemes < policy.min_phonemes_per_s * duration_s
    if policy.max_phonemes_per_s is not None:
        broken |= phonemes > policy.max_phonemes_per_s * duration_s
    return broken


def _speech_rate_words(policy: Policy) -> str:
    bounds = (("fewer", policy.min_phonemes_per_s), ("more", policy.max_phonemes_per_s))
    rates = " or ".join(f"{word} than {rate:g}" for word, rate in bounds if rate is not None)
    return f"it has {rates} phonemes a second"


# A label that breaks several rules gets the reason of the first.
RULES: Final[Mapping[Reason, Rule]] = {
    Reason.EMPTY: Rule(
        lambda policy: policy.reject_empty,
        lambda _: TOKEN_COLUMNS,
        lambda _, columns: label_tokens(columns) == 0,
        lambda _: "no word is left of it after normalisation",
    ),
    Reason.TEACHER_REPETITION: Rule(
        lambda _: True,  # "or the teacher repeats itself, the label is dropped" (the paper)
        lambda policy: ("teacher_repetition",) if policy.loops_max is None else ("teacher_repetition", "loops"),
        _loops,
        _loop_words,
    ),
    Reason.HALLUCINATION_PHRASE: Rule(
        lambda policy: policy.reject_phrases,
        lambda _: ("is_phrase",),
        lambda _, columns: columns["is_phrase"].astype(np.bool_),
        lambda _: "it is nothing but known hallucination phrases, such as subtitle credits",
    ),
    Reason.PROMPT_ECHO: Rule(
        lambda policy: policy.reject_echoes,
        lambda _: ("is_echo",),
        lambda _, columns: columns["is_echo"].astype(np.bool_),
        lambda _: "it repeats the prompt the teacher was given",
    ),
    Reason.RESCORED: Rule(
        lambda policy: policy.reject_rescored,
        lambda _: ("is_rescored",),
        _rescored,
        lambda _: "its text is a second decode's instead of the teacher's own (label with --no-rescore to have none)",
    ),
    Reason.LANGUAGE_FLIP: Rule(
        lambda policy: policy.flip_max is not None,
        lambda _: ("flip",),
        lambda policy, columns: columns["flip"] > policy.flip_max,
        lambda policy: (
            f"it is in another language than the hypotheses: shares of Mandarin more than {policy.flip_max:.0%} apart"
        ),
    ),
    Reason.SCRIPT_MIX: Rule(
        lambda policy: policy.foreign_max is not None,
        lambda _: TOKEN_COLUMNS,
        lambda policy, columns: columns["other_tokens"] > policy.foreign_max * evidence_tokens(columns),
        lambda policy: f"more than {policy.foreign_max:.0%} of it is neither Chinese nor Latin script",
    ),
    Reason.SPEECH_RATE: Rule(
        lambda policy: policy.min_phonemes_per_s is not None or policy.max_phonemes_per_s is not None,
        lambda _: ("phonemes", "duration_s"),
        _speech_rate,
        _speech_rate_words,
    ),
    Reason.UNCONFIRMED: Rule(
        lambda policy: policy.disagreement_max is not None,
        lambda policy: (QUORUM_COLUMNS[policy.quorum],),
        lambda policy, columns: columns[QUORUM_COLUMNS[policy.quorum]] > policy.disagreement_max,
        lambda policy: f"the validators transcribe more than {policy.disagreement_max:.0%} of it differently",
    ),
}
