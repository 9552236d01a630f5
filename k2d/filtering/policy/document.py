"""The policy itself: rules and weights as a validated document, read from presets and YAML files.

    Policy(metric=Metric.PER, alpha=0.3)
    load("evidence").varied(alpha=0.2)

What its rules do is in `rules.py`, what its weights do in `risk.py`.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from k2d.errors import BadRequest
from k2d.filtering.policy.risk import Weights
from k2d.foreign import Unparsable, parse_yaml
from k2d.keys import digest
from k2d.schema import Metric, Quorum
from k2d.text.repetition import NGRAM, REPETITION_MAX
from k2d.textfiles import read_text, why_unreadable
from k2d.wording import did_you_mean

VERSION: Final = 2  # of the file format

# Names of version 1 of the format (k2d 0.1), which is still read.
_EARLIER_FIELDS: Final = {
    "min_units_per_s": "min_phonemes_per_s",
    "max_units_per_s": "max_phonemes_per_s",
    "usual_units_per_s": "usual_phonemes_per_s",
}
_EARLIER_WEIGHTS: Final = {
    "respelled": "homophones",
    "doubted": "expected_token_error",
    "unsounded": "probe_nll",
    "unlikely": "forced_logprob",
    "unsure": "avg_logprob",
    "heated": "temperature",
    "silent": "no_speech_prob",
    "rushed": "speech_rate",
}


class Policy(BaseModel):
    """Rules that turn the facts of a chunk into a verdict. Rejections are tried in the order of the fields below."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[2] = Field(default=2, description="Of this format; version 1 is read too.")
    name: str = Field(default="custom", min_length=1, max_length=100, description="Shown to people; part of the key.")
    reject_empty: bool = Field(default=True, description="Reject labels in which no token survives normalisation.")
    repetition_max: int = Field(
        default=REPETITION_MAX,
        ge=1,
        description=f"A text loops when some {NGRAM} characters occur more often than this (c).",
    )
    loops_max: int | None = Field(
        default=None,
        ge=1,
        description="A text loops when it repeats itself more often than this, and more than speech does.",
    )
    reject_phrases: bool = Field(
        default=True, description="Reject labels that are nothing but known hallucination phrases."
    )
    reject_echoes: bool = Field(default=False, description="Reject labels that repeat their prompt.")
    reject_rescored: bool = Field(
        default=False, description="Reject labels whose text is a second decode's instead of the teacher's own."
    )
    flip_max: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Reject labels whose share of Mandarin differs more than this: translated.",
    )
    foreign_max: float | None = Field(
        default=None, ge=0, le=1, description="Reject labels with a larger share of tokens in other scripts."
    )
    min_phonemes_per_s: float | None = Field(
        default=None, ge=0, description="Reject labels with fewer phonemes per second."
    )
    max_phonemes_per_s: float | None = Field(
        default=None, gt=0, description="Reject labels with more phonemes per second."
    )
    disagreement_max: float | None = Field(
        default=None, ge=0, le=1, description="Reject labels that differ by more than this from the hypotheses."
    )
    metric: Metric = Field(default=Metric.COMPOSITE, description="The distance or risk that is compared with alpha.")
    alpha: float = Field(default=0.4, ge=0, le=1, description="Keep a chunk when that is at most this: 0…1.")
    quorum: Quorum = Field(default=Quorum.MOST, description="Which hypothesis counts where there are several.")
    usual_phonemes_per_s: float = Field(
        default=9.0, gt=0, description="The median of the corpus's phonemes per second."
    )
    weights: Weights | None = Field(default=None, description="How evidence becomes risk; only for that metric.")
    salvage: bool = Field(default=False, description="Keep the good segments of chunks that are not kept whole.")
    claim: str | None = Field(
        default=None, max_length=500, description="What `k2d calibrate` proved of this policy; nothing when left out."
    )

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, fields: Any) -> Any:
        """Rename the members of a version 1 policy."""
        if not isinstance(fields, Mapping) or fields.get("version") != 1:
            return fields
        upgraded = {_EARLIER_FIELDS.get(name, name): value for name, value in fields.items()} | {"version": VERSION}
        if isinstance(weights := upgraded.get("weights"), Mapping):
            upgraded["weights"] = {_EARLIER_WEIGHTS.get(name, name): value for name, value in weights.items()}
        return upgraded

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.metric is Metric.EVIDENCE and self.weights is None:
            raise ValueError("metric evidence needs weights")
        if self.salvage and self.metric is not Metric.EVIDENCE:
            raise ValueError("salvage needs metric evidence: distances are known for whole chunks only")
        return self

    @property
    def key(self) -> str:
        """A hash of these rules, 32 hex characters."""
        return digest(self.model_dump(mode="json"))

    def varied(self, *, metric: Metric | None = None, alpha: float | None = None) -> "Policy":
        """Return the same rules with another metric or α. If they differ, the name is "custom" and the claim is
        dropped.

            DEFAULT.varied(alpha=0.2)

        With a distance as metric `salvage` is switched off, since distances are known for whole chunks only.
        """
        changes: dict[str, Any] = {
            name: value for name, value in (("metric", metric), ("alpha", alpha)) if value is not None
        }
        if metric not in (None, Metric.EVIDENCE):
            changes["salvage"] = False
        varied = self.model_copy(update=changes)
        return varied if varied == self else parse(varied.model_dump() | {"name": "custom", "claim": None})


def parse(fields: Mapping[str, Any]) -> Policy:
    """Validate the members of a policy that a person wrote.

        parse({"metric": "per", "alpha": 0.3})

    Raises:
        BadRequest: an unknown field or an impossible value, such as an alpha of 1.5.
    """
    try:
        return Policy.model_validate(dict(fields))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'policy'}: {e['msg']}" for e in error.errors())
        unknown = (e["loc"] for e in error.errors() if e["type"] == "extra_forbidden")
        fields_of: dict[tuple[int | str, ...], Iterable[str]] = {
            (): Policy.model_fields,
            ("weights",): Weights.model_fields,
        }
        meant = "".join(did_you_mean(str(loc[-1]), fields_of.get(loc[:-1], ())) for loc in unknown)
        fields_hint = f"metric is one of {', '.join(Metric)}; fields are {', '.join(Policy.model_fields)}"
        raise BadRequest(f"the policy is not valid: {problems}", hint=f"{meant}alpha is 0…1; {fields_hint}") from error


def from_yaml(text: str, *, name: str = "the policy") -> Policy:
    """Read a policy file.

    Raises:
        BadRequest: not YAML, not a mapping, or as in `parse`.
    """
    try:
        fields = parse_yaml(text)
    except Unparsable as error:
        raise BadRequest(f"{name} is not YAML: {error}", hint="write one `key: value` per line") from error
    if not isinstance(fields, Mapping):
        raise BadRequest(
            f"{name} is not a mapping of policy fields", hint="`k2d policy show evidence` prints one to start from"
        )
    return parse({str(key): value for key, value in fields.items()})


def to_yaml(policy: Policy) -> str:
    """Write a policy as YAML. Members that are None are left out; `from_yaml` gives the same policy back."""
    fields = policy.model_dump(mode="json", exclude_none=True)
    return str(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))


def load(preset_or_path: str) -> Policy:
    """Return a preset by its name, or read a policy file by its path (anything with a dot or a slash in it).

        load("paper"), load("mine.yaml")

    Raises:
        BadRequest: no such preset or file, or as in `from_yaml`.
    """
    if preset_or_path in PRESETS:
        return PRESETS[preset_or_path]
    if not any(sign in preset_or_path for sign in "./\\"):
        raise BadRequest(
            f"unknown policy: {preset_or_path!r}", hint=f"one of {', '.join(PRESETS)}, or the path of a YAML file"
        )
    try:
        text = read_text(Path(preset_or_path))
    except (OSError, UnicodeError) as error:
        raise BadRequest(
            f"cannot read the policy {preset_or_path}: {why_unreadable(error)}",
            hint=f"give the path of a YAML file, or one of {', '.join(PRESETS)}",
        ) from error
    return from_yaml(text, name=preset_or_path)


@cache
def _shipped(name: str) -> Policy:
    file = resources.files("k2d.filtering.policy") / "presets" / f"{name}.yaml"
    return from_yaml(file.read_text("utf-8"), name=name)


# The paper's filter: composite distance at most 0.4, nothing else (docs/method.md).
PAPER: Final = _shipped("paper")
# The risk computed from the evidence of each segment (docs/adr/0008).
DEFAULT: Final = _shipped("evidence")
PRESETS: Final = {policy.name: policy for policy in (DEFAULT, PAPER)}
