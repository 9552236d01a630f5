"""Requests and responses of the labeling API, with examples: what /docs shows."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from k2d.policy import DEFAULT, Policy
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
        None, description="Model that doubts, or `perturbed`.", examples=["openai/whisper-base"]
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
    """in = accepted + rejected + quarantined + silence, exact in milliseconds."""

    model_config = ConfigDict(populate_by_name=True)

    in_: float = Field(alias="in", examples=[252.4])
    accepted: float = Field(examples=[201.2])
    rejected: float = Field(examples=[20.0])
    quarantined: float = Field(examples=[18.0])
    silence: float = Field(examples=[13.2])


class ChunkCounts(BaseModel):
    accepted: int = Field(examples=[14])
    rejected: int = Field(examples=[2])


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
    views: list[str] = Field(examples=[["as is"]])
    mer: float
    per: float
    composite: float
    mer_bounded: float
    per_bounded: float
    composite_bounded: float
    teacher_repetition: int
    validator_repetition: int
    phrase: str | None
    verdict: Status
    reason: Reason


class ChunkList(BaseModel):
    chunks: list[ChunkRow]
    next: str | None = Field(description="cursor of the next page, null at the end")


class DiffOperation(BaseModel):
    """One step of the alignment of teacher and validator."""

    model_config = ConfigDict(extra="allow")

    op: Literal["equal", "substitute", "delete", "insert"]


class View(BaseModel):
    """What the validator heard, and how it differs."""

    view: str = Field(examples=["as is"])
    text: str
    diff: list[DiffOperation]


class ChunkDetail(BaseModel):
    """Everything known of one chunk."""

    id: str
    recording_id: str
    index: int
    start_s: float
    end_s: float
    duration_s: float
    teacher_text: str
    validator: str
    views: list[View]
    distances: dict[Metric, float]
    counts: dict[str, dict[str, int]]
    repetition: dict[str, int]
    phrase: str | None
    segments: list[dict[str, Any]]
    verdict: Status
    reason: Reason
    policy: str


class PreviewRequest(Request):
    """A policy to try on stored facts."""

    batches: list[str] = Field(min_length=1, description="Batch ids or names.", examples=[["lectures-2026-11"]])
    policy: Policy = Field(default_factory=lambda: DEFAULT)


class Tally(BaseModel):
    chunks: int
    seconds: float


class CurvePoint(BaseModel):
    """What is kept at one α."""

    alpha: float = Field(examples=[0.4])
    chunks: int = Field(examples=[14])
    seconds: float = Field(examples=[201.2])


class Preview(BaseModel):
    """What a policy would keep; no model ran for it."""

    policy: Policy
    batches: list[str]
    chunks: ChunkCounts
    seconds: dict[Literal["accepted", "rejected"], float]
    hours_accepted: float
    reasons: dict[str, Tally]
    curve: dict[Metric, list[CurvePoint]]


class PolicyListed(BaseModel):
    policy: Policy
    explanation: str


class DatasetRequest(Request):
    """What to freeze under which name."""

    name: str = Field(examples=["lectures-v1"])
    batches: list[str] = Field(min_length=1, examples=[["lectures-2026-11"]])
    policy: Policy = Field(default_factory=lambda: DEFAULT)


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
