"""Requests and responses of the labeling API, with examples: what /docs shows."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from k2d.filtering.policy import DEFAULT, Policy
from k2d.schema import BatchState, Metric, Reason, Status


class Request(BaseModel):
    """A request body: unknown members are refused, a typo must fail."""

    model_config = ConfigDict(extra="forbid")


class BatchOptions(Request):
    """What may differ from batch to batch. Whatever is left out is what the service is configured with."""

    name: str | None = Field(None, description="A name to find the batch by.", examples=["lectures-2026-11"])
    language: str | None = Field(
        None, description="`zh-en` (mixed prompt), `auto`, or a Whisper code.", examples=["zh-en"]
    )
    teacher: str | None = Field(None, description="Model that labels.", examples=["openai/whisper-large-v2"])
    validator: str | None = Field(
        None, description="Model that expected_token_errors, or `perturbed`.", examples=["openai/whisper-base"]
    )
    vad: bool | None = Field(None, description="Skip what a voice activity detector calls silence.")
    condition_on_previous_text: bool | None = Field(None, description="Give each window the previous window's text.")


class BatchByReference(BatchOptions):
    """Recordings the service fetches itself; every URI must lie under an allowed prefix."""

    sources: list[str] = Field(
        min_length=1,
        max_length=1_000_000,
        examples=[["file:///srv/audio/lecture-01.m4a", "s3://corpus/lecture-02.flac"]],
    )


class BatchUpload(BatchOptions):
    """Recordings sent along, `multipart/form-data`, one `files` part each."""

    files: list[Annotated[str, Field(json_schema_extra={"format": "binary"})]]


class Seconds(BaseModel):
    """in = accepted + salvaged + rejected + quarantined + silence, exact in milliseconds."""

    model_config = ConfigDict(populate_by_name=True)

    in_: float = Field(alias="in", examples=[252.4])
    accepted: float = Field(description="Of chunks kept whole.", examples=[201.2])
    salvaged: float = Field(description="Of good segments of other chunks.", examples=[8.0])
    rejected: float = Field(examples=[12.0])
    quarantined: float = Field(examples=[18.0])
    silence: float = Field(examples=[13.2])


class ChunkCounts(BaseModel):
    accepted: int = Field(examples=[14])
    salvaged: int = Field(description="Kept in part.", examples=[1])
    rejected: int = Field(examples=[1])


class RecordingCounts(BaseModel):
    total: int = Field(examples=[14])
    labeled: int = Field(examples=[12])
    quarantined: int = Field(examples=[2])
    pending: int = Field(examples=[0])


class Ledger(BaseModel):
    """Where every second of the batch went under a policy, over the recordings that are finished."""

    batch: str = Field(examples=["b_0f3c9a1be2d47c55"])
    name: str = Field(examples=["lectures-2026-11"])
    policy: str = Field(examples=["evidence"])
    seconds: Seconds
    chunks: ChunkCounts
    recordings: RecordingCounts
    wall_s: float = Field(description="Worker time spent, in seconds.", examples=[48.1])


class Jobs(BaseModel):
    """What the queue knows of the batch now."""

    jobs_queued: int = Field(examples=[3])
    jobs_running: int = Field(examples=[1])
    jobs_failed: int = Field(examples=[0])
    last_error: str | None = Field(None, examples=[None])
    seconds_in_flight: float = Field(
        description="Of unfinished recordings, what the teacher has heard.", examples=[61.3]
    )
    updated_at: float | None = Field(None, description="Unix time of the last progress.", examples=[1795000000.0])


class Quarantined(BaseModel):
    """A recording that was set aside, and why."""

    recording: str = Field(examples=["broken.mp3"])
    reason: str | None = Field(examples=["not_audio"])
    detail: str | None = Field(examples=["no audio stream was found in the file"])
    duration_s: float = Field(examples=[0.0])


class BatchSummary(BaseModel):
    id: str = Field(examples=["b_0f3c9a1be2d47c55"])
    name: str = Field(examples=["lectures-2026-11"])
    created_at: str = Field(examples=["2026-11-22T14:00:00+00:00"])
    recordings: int = Field(examples=[14])
    teacher: str = Field(examples=["openai/whisper-large-v2"])
    validator: str = Field(examples=["openai/whisper-base"])
    language: str = Field(examples=["zh-en"])


class BatchListed(BatchSummary):
    state: BatchState
    pending: int = Field(examples=[0])


class BatchStatus(BatchSummary):
    """A batch's state and ledger."""

    state: BatchState
    ledger: Ledger
    jobs: Jobs | None = Field(description="null when the queue does not answer")
    quarantined: list[Quarantined] = Field(description="the first 100")
    quarantined_total: int = Field(examples=[1])


class BatchList(BaseModel):
    batches: list[BatchListed]
    next: str | None = Field(description="cursor of the next page, null at the end")


class Forecast(BaseModel):
    """What a batch would cost; nothing was stored or queued."""

    recordings: int = Field(examples=[14])
    unknown: int = Field(description="recordings whose header does not tell their length", examples=[1])
    hours: float = Field(examples=[0.0701])
    windows: int = Field(examples=[18])
    estimated_s: float = Field(examples=[50.5])
    basis: str = Field(examples=["5.1 × real time with 1 worker: measured on 12 recordings of batch lectures"])


class ChunkRow(BaseModel):
    """One chunk in a list."""

    id: str = Field(examples=["2f1d0c…-00003"])
    recording: str = Field(examples=["lecture-01.m4a"])
    index: int
    start_s: float = Field(examples=[61.3])
    end_s: float = Field(examples=[88.9])
    teacher_text: str = Field(examples=["今天這堂課我們先來 review 一下"])
    validator_text: str = Field(examples=["今天這堂課我們先來 review 一下"])
    validator_texts: list[str]
    validator: str = Field(examples=["model:openai/whisper-base"])
    perturbations: list[str] = Field(examples=[["as is"]])
    mer: float
    per: float
    composite: float
    mer_bounded: float
    per_bounded: float
    composite_bounded: float
    evidence: float | None = Field(description="Risk; null when the policy has no weights.", examples=[0.12])
    teacher_repetition: int
    validator_repetition: int
    phrase: str | None
    verdict: Status
    reason: Reason
    salvaged_s: float = Field(description="Of a chunk that is not kept: seconds of its segments that are.")


class ChunkList(BaseModel):
    chunks: list[ChunkRow]
    next: str | None = Field(description="cursor of the next page, null at the end")


class DiffOperation(BaseModel):
    """One step of the alignment of teacher and validator."""

    model_config = ConfigDict(extra="allow")

    op: Literal["equal", "substitute", "delete", "insert"]


class HypothesisDetail(BaseModel):
    """What one validator heard in one perturbation of the audio."""

    validator: str = Field(examples=["model:openai/whisper-base"])
    perturbation: str = Field(examples=["as is"])
    text: str = Field(description="Phonemes, where `is_phonemes`.")
    avg_logprob: float
    scores: list[float] = Field(description="How likely it finds each segment's label; empty where it cannot score.")
    expected_token_errors: list[float] = Field(description="Share of each segment's tokens it expects to be wrong; empty as `scores`.")
    is_phonemes: bool
    diff: list[DiffOperation] = Field(description="The label beside this text; empty for phonemes.")


class SegmentDetail(BaseModel):
    """A segment of the label, its evidence, and what the policy makes of it alone."""

    id: str = Field(examples=["2f1d0c…-00003.001"])
    start_s: float
    end_s: float
    text: str
    tokens: list[int]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    language: str
    evidence: dict[str, float | int | bool]
    verdict: Status | None = Field(description="null by a policy that compares a distance: it knows whole chunks only.")
    reason: Reason | None
    risk: float | None
    contributions: dict[str, float]
    salvaged: bool


class ChunkDetail(BaseModel):
    """Everything known of one chunk, and why it is kept or not."""

    id: str
    recording_id: str
    index: int
    start_s: float
    end_s: float
    duration_s: float
    teacher_text: str
    validator: str
    hypotheses: list[HypothesisDetail]
    distances: dict[Metric, float | None]
    counts: dict[str, dict[str, int]]
    repetition: dict[str, int]
    phrase: str | None
    evidence: dict[str, float | int | bool]
    contributions: dict[str, float] = Field(
        description="What the bias and each feature add to the log-odds of the risk; empty by a distance.",
        examples=[{"bias": -4.0, "disagreement": 3.1, "forced_logprob": 0.4}],
    )
    segments: list[SegmentDetail]
    salvaged_s: float
    verdict: Status
    reason: Reason
    policy: str
    explanation: str = Field(description="The policy in plain language.")


class PreviewRequest(Request):
    """A policy to try on stored facts."""

    batches: list[str] = Field(min_length=1, description="Batch ids or names.", examples=[["lectures-2026-11"]])
    policy: Policy = Field(default_factory=lambda: DEFAULT)
    curve: list[Metric] | None = Field(None, description="Metrics to draw over α; the policy's own when left out.")


class Tally(BaseModel):
    chunks: int
    seconds: float


class CurvePoint(BaseModel):
    """What is kept at one α."""

    alpha: float = Field(examples=[0.4])
    chunks: int = Field(examples=[14])
    seconds: float = Field(examples=[201.2])
    salvaged: float = Field(description="Seconds salvaged of the other chunks.", examples=[8.0])


class Preview(BaseModel):
    """What a policy would keep; no model ran for it."""

    policy: Policy
    batches: list[str]
    chunks: ChunkCounts
    seconds: dict[Literal["accepted", "salvaged", "rejected"], float]
    hours_accepted: float
    hours_salvaged: float
    salvage_sample: float = Field(
        description="Share of the chunks in which salvage was counted; below 1 it is estimated from them.",
        examples=[1.0],
    )
    reasons: dict[Reason, Tally] = Field(description="Of whole chunks, whatever is salvaged of them.")
    curve: dict[Metric, list[CurvePoint]]


class PolicyListed(BaseModel):
    policy: Policy
    explanation: str


class DatasetRequest(Request):
    """What to freeze under which name."""

    name: str = Field(examples=["lectures-v1"])
    batches: list[str] = Field(min_length=1, examples=[["lectures-2026-11"]])
    policy: Policy = Field(default_factory=lambda: DEFAULT)
    without: list[str] = Field(
        default=[],
        max_length=1_000_000,
        description="Ids of chunks and segments to leave out, as rows have them.",
        examples=[["2f1d0c…-00003.001"]],
    )


class DatasetState(BaseModel):
    """A dataset that is being frozen, or ready with its manifest."""

    name: str = Field(examples=["lectures-v1"])
    state: Literal["building", "ready", "failed"]
    error: str | None = None
    manifest: dict[str, Any] | None = None


class DatasetList(BaseModel):
    datasets: list[dict[str, Any]] = Field(description="name, created_at, digest, rows, hours of each")


class Resumed(BaseModel):
    """Batches whose missing recordings were queued again."""

    batches: dict[str, int] = Field(description="recordings missing, by batch id", examples=[{"b_0f3c9a1be2d47c55": 3}])


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    version: str
