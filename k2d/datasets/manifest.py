"""The manifest of a dataset: where it comes from, what it holds, and proof of both. Written last: it means done."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION = 1  # of rows and manifest; part of the digest


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Shard(_Frozen):
    """One Parquet file."""

    number: int
    rows: int
    bytes: int
    sha256: str
    seconds: float = Field(description="Audio in it, with the silence that fills gaps.")


class Counts(_Frozen):
    """How many of what."""

    recordings: int = Field(description="Different recordings in the batches.")
    labeled: int
    quarantined: int
    pending: int = Field(description="Without a result: of batches that were cancelled.")
    duplicates: int = Field(description="Recordings that had already entered under another position or batch.")
    chunks: int
    accepted: int
    rejected: int
    rows: int = Field(description="Training rows: adjacent accepted chunks packed to at most 30 s.")


class Seconds(_Frozen):
    """The ledger, exact in milliseconds: input = accepted + rejected + quarantined + silence."""

    input: float
    accepted: float
    rejected: float
    quarantined: float
    silence: float = Field(description="Of labeled recordings, what no chunk covers.")
    by_reason: dict[str, float]


class Teacher(_Frozen):
    """A model that labeled."""

    fingerprint: str
    model: dict[str, Any] = Field(description="As recorded with the labels: reference, digest, engine, precision.")


class Validator(_Frozen):
    """A model that doubted."""

    name: str = Field(description="model:… or perturbed:…")
    fingerprint: str
    fallback: bool = Field(description="Whether this was no second model but the teacher's weights on perturbed audio.")


class Manifest(_Frozen):
    """Everything about a dataset but its rows."""

    name: str
    digest: str = Field(
        description="Of recordings, keys, accepted chunks, policy and options: equal content, equal digest."
    )
    format_version: int
    k2d_version: str
    created_at: str = Field(description="ISO 8601, UTC.")
    batches: list[str] = Field(description="Ids.")
    policy: dict[str, Any]
    policy_hash: str
    policy_explanation: str
    max_gap_s: float
    shard_bytes: int
    options: list[dict[str, Any]] = Field(description="How the batches were decoded, each set of options once.")
    teachers: list[Teacher]
    validators: list[Validator]
    counts: Counts
    seconds: Seconds
    shards: list[Shard]
