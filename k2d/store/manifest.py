"""The manifest of a dataset: where it comes from, what it holds, and proof of both. Written last: it means done."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

# Of rows and manifest; part of the digest. 2: salvaged segments, segment_ids, revoked ids. Older ones are still read:
# what they lack has a default.
FORMAT_VERSION = 2


class _Immutable(BaseModel):
    model_config = ConfigDict(frozen=True)


class DatasetShard(_Immutable):
    """One Parquet file."""

    number: int
    rows: int
    bytes: int
    sha256: str
    seconds: float = Field(description="Audio in it, with the silence that fills gaps.")


class DatasetCounts(_Immutable):
    """How many of what."""

    recordings: int = Field(description="Different recordings in the batches.")
    labeled: int
    quarantined: int
    pending: int = Field(description="Without a result: of batches that were cancelled.")
    duplicates: int = Field(description="Recordings that had already entered under another position or batch.")
    chunks: int
    accepted: int = Field(description="Chunks kept whole.")
    salvaged: int = Field(default=0, description="Chunks of which only good segments were kept.")
    rejected: int
    rows: int = Field(description="Training rows: neighbours that were kept, packed to at most 30 s.")


class DatasetSeconds(_Immutable):
    """The ledger, exact in milliseconds: input = accepted + salvaged + rejected + quarantined + silence."""

    input: float
    accepted: float = Field(description="Of chunks kept whole.")
    salvaged: float = Field(default=0.0, description="Of segments kept of other chunks.")
    rejected: float = Field(description="The rest of chunks, pauses between their segments included.")
    quarantined: float
    silence: float = Field(description="Of labeled recordings, what no chunk covers.")
    by_reason: dict[str, float] = Field(description="Of all but silence and salvaged; `revoked` were asked away.")


class Without(_Immutable):
    """Ids of chunks and segments that were asked to be left out."""

    ids: int
    found: int = Field(description="Of them in these batches.")
    hash: str = Field(description="Of the sorted ids; part of the digest.")


class DatasetTeacher(_Immutable):
    """A model that labeled."""

    fingerprint: str
    model: dict[str, Any] = Field(description="As recorded with the labels: reference, digest, engine, precision.")


class DatasetValidator(_Immutable):
    """A model that doubted."""

    name: str = Field(description="model:… or perturbed:…")
    fingerprint: str
    fallback: bool = Field(description="Whether this was no second model but the teacher's weights on perturbed audio.")


class Manifest(_Immutable):
    """Everything about a dataset but its rows."""

    name: str
    digest: str = Field(
        description="Of recordings, keys, what is kept, policy and options: equal content, equal digest."
    )
    format_version: int
    k2d_version: str
    created_at: str = Field(description="ISO 8601, UTC.")
    batches: list[str] = Field(description="Ids.")
    policy: dict[str, Any]
    policy_hash: str
    policy_explanation: str
    without: Without | None = Field(default=None, description="What was revoked; null when nothing was.")
    max_gap_s: float
    shard_bytes: int
    options: list[dict[str, Any]] = Field(description="How the batches were decoded, each set of options once.")
    teachers: list[DatasetTeacher]
    validators: list[DatasetValidator]
    counts: DatasetCounts
    seconds: DatasetSeconds
    shards: list[DatasetShard]
