"""The manifest of a dataset: its origin, its content and the hashes of its shards. Written last, so it means "done"."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from k2d.schema import Script

# Version of rows and manifest; part of the digest. Version 2 added salvaged segments, segment_ids and revoked ids.
# Older manifests are still read: members that they lack have defaults.
# Version 3 wrote shards by slices of parts, under names of their own.
FORMAT_VERSION: Final = 3
ROWS_VERSION: Final = 2  # of the rows alone, in the metadata of shards


class _ManifestModel(BaseModel):
    model_config = ConfigDict(frozen=True)


class DatasetShard(_ManifestModel):
    """One Parquet file of a dataset."""

    number: int
    rows: int
    bytes: int
    sha256: str
    seconds: float = Field(description="Audio in it, with the silence that fills gaps.")
    file: str | None = Field(
        default=None, description="Name of its file; null: its number in five digits, as before version 0.3."
    )


class DatasetCounts(_ManifestModel):
    """Numbers of recordings, chunks and rows."""

    recordings: int = Field(description="Different recordings in the batches.")
    labeled: int
    quarantined: int
    pending: int = Field(description="Recordings of cancelled batches that have no result.")
    duplicates: int = Field(description="Recordings already included from another position or batch.")
    chunks: int
    accepted: int = Field(description="Chunks kept whole.")
    salvaged: int = Field(default=0, description="Chunks of which only some segments were kept.")
    rejected: int
    rows: int = Field(description="Training rows: kept neighbours, packed to at most 30 s.")


class DatasetSeconds(_ManifestModel):
    """The ledger of seconds, exact in milliseconds: in = accepted + salvaged + rejected + quarantined + no label."""

    input: float
    accepted: float = Field(description="Of chunks kept whole.")
    salvaged: float = Field(default=0.0, description="Of segments kept of other chunks.")
    rejected: float = Field(description="The rest of the chunks, pauses between their segments included.")
    quarantined: float
    silence: float = Field(description="No label: what no chunk covers of labeled recordings (silence, music, pauses).")
    by_reason: dict[str, float] = Field(
        description="Without salvaged and what has no label; `revoked`: excluded by their ids; `reviewed`: by reviews."
    )


class DatasetRevocations(_ManifestModel):
    """The ids of chunks and segments that were excluded on request."""

    ids: int = Field(description="How many ids were given.")
    found: int = Field(description="How many of them are in these batches.")
    hash: str = Field(description="Hash of the sorted ids; part of the digest.")


class DatasetReviews(_ManifestModel):
    """What people said of segments of the batches, and what became of it: numbers of segments."""

    segments: int = Field(description="Reviewed segments of the batches.")
    confirmed: int = Field(description="The label is what is said.")
    corrected: int = Field(description="They have the text that a person wrote or chose.")
    left_out: int = Field(description="Nothing is said there, nobody wrote down what is, or the reviewers disagree.")
    disputed: int = Field(description="Those of `left_out` of which reviewers disagree.")
    hash: str = Field(description="Hash of the reviews and of what they say; part of the digest.")


class DatasetScript(_ManifestModel):
    """How the labels were converted to one script. Part of the digest."""

    name: Script
    standard: str = Field(description="OpenCC's name for the characters: s2tw (Taiwan, without phrases) or tw2s.")
    converter: str = Field(description="Name and version of the converter.")
    version: int = Field(description="Version of the rules for mixed labels and for characters of both scripts.")


class DatasetScriptRows(_ManifestModel):
    """How many rows were in which script as heard, by the characters that only one script has."""

    traditional: int
    simplified: int
    mixed: int
    neither: int = Field(description="Rows without such a character.")


class DatasetTeacher(_ManifestModel):
    """A model that labeled."""

    fingerprint: str
    model: dict[str, Any] = Field(description="As recorded with the labels: reference, digest, engine, precision.")


class DatasetValidator(_ManifestModel):
    """A validator that checked the labels."""

    name: str = Field(description="model:… or perturbed:…")
    fingerprint: str
    fallback: bool = Field(description="Whether this is the teacher's weights on perturbed audio, not a second model.")


class DatasetVersions(_ManifestModel):
    """The versions of k2d that made labels and facts; 0 and empty: not recorded, as before version 0.3."""

    label: int = Field(description="Version of the labeling stage.")
    facts: int = Field(description="Version of the evidence.")
    labeled_by: str = Field(description="Version of k2d that labeled.")
    validated_by: str = Field(description="Version of k2d that computed the facts.")
    recordings: int = Field(description="How many labeled recordings of the batches have these versions.")


class Manifest(_ManifestModel):
    """The description of a dataset."""

    name: str
    digest: str = Field(
        description="Hash of recordings, keys, what is kept, policy and options: equal content, equal digest."
    )
    format_version: int
    k2d_version: str
    created_at: str = Field(description="ISO 8601, UTC.")
    batches: list[str] = Field(description="Ids of the batches.")
    policy: dict[str, Any]
    policy_hash: str
    policy_explanation: str
    without: DatasetRevocations | None = Field(default=None, description="What was revoked; null when nothing was.")
    reviews: DatasetReviews | None = Field(
        default=None, description="The reviews whose texts replace labels; null: no reviewed text is used."
    )
    script: DatasetScript | None = Field(default=None, description="The one script of the labels; null: as heard.")
    scripts_as_heard: DatasetScriptRows | None = Field(
        default=None, description="In which scripts the teacher wrote; null in datasets of version 0.2 and before."
    )
    origins: dict[str, float] | None = Field(
        default=None,
        description="Seconds of segments by where their text comes from: `teacher`, a second decode, or `review`; "
        "null in datasets of version 0.2 and before.",
    )
    versions: list[DatasetVersions] | None = Field(
        default=None,
        description="By which versions of k2d the recordings were labeled and validated; several only on request "
        "(`allow_mixed`). null in datasets of version 0.2 and before.",
    )
    max_gap_s: float
    shard_bytes: int
    options: list[dict[str, Any]] = Field(description="The decoding options of the batches, each set once.")
    teachers: list[DatasetTeacher]
    validators: list[DatasetValidator]
    counts: DatasetCounts
    seconds: DatasetSeconds
    shards: list[DatasetShard]

    @property
    def has_raw_text(self) -> bool:
        """Whether rows have `raw_text`: what the models wrote, where texts were converted or reviewed."""
        return self.script is not None or self.reviews is not None
