"""Which columns of facts a policy looks at: over millions of rows, the others are better not read. Pure."""

from k2d.filtering.policy.decide import COMPOSITES, COUNT_COLUMNS
from k2d.filtering.policy.risk import QUORUM_COLUMNS, weighed
from k2d.filtering.policy.rules import Policy
from k2d.schema import Metric

_TOKENS = ("zh_tokens", "en_tokens", "other_tokens")
_FEATURES = {
    "homophones": ("homophones",),
    "expected_token_error": ("doubt",),
    "probe_nll": ("probe_nll",),
    "forced_logprob": ("score",),
    "avg_logprob": ("avg_logprob",),
    "temperature": ("temperature",),
    "no_speech_prob": ("no_speech_prob",),
    "speech_rate": ("units", "duration_s"),
}
# of rejected rows alone: which way they were heard differently, and whether the hypotheses contradict one another
WHY_COLUMNS = (
    "score",
    "homophones",
    "substituted",
    "deleted",
    "inserted",
    "disagreement_least",
    "disagreement_most",
    "hypothesis_repetition",
)


def metric_columns(metric: Metric) -> tuple[str, ...]:
    """What a distance is computed from; nothing for evidence, whose columns its policy names."""
    if metric is Metric.EVIDENCE:
        return ()
    prefix = "mer" if metric in (Metric.MER, Metric.MER_BOUNDED) else "per"
    counts = tuple(f"{prefix}_{name}" for name in COUNT_COLUMNS)
    return (*counts, "teacher_repetition", "validator_repetition") if metric in COMPOSITES else counts


def policy_columns(policy: Policy) -> tuple[str, ...]:
    """The columns that `decide` needs to judge by this policy, each once; the verdicts are those by all columns."""
    names: list[str] = ["teacher_repetition"]
    if policy.reject_empty or policy.foreign_max is not None:
        names += _TOKENS
    if policy.loops_max is not None:
        names.append("loops")
    if policy.reject_phrases:
        names.append("is_phrase")
    if policy.reject_echoes:
        names.append("is_echo")
    if policy.flip_max is not None:
        names.append("flip")
    if policy.min_phonemes_per_s is not None or policy.max_phonemes_per_s is not None:
        names += ["units", "duration_s"]
    if policy.disagreement_max is not None:
        names.append(QUORUM_COLUMNS[policy.quorum])
    names += metric_columns(policy.metric)
    if policy.metric is Metric.EVIDENCE and policy.weights is not None:
        for feature in weighed(policy.weights):
            names += _FEATURES.get(feature, (QUORUM_COLUMNS[policy.quorum],))
        names += WHY_COLUMNS
    return tuple(dict.fromkeys(names))
