"""The JSON documents of the labeling API, each described once: requests, and what the API, the HTTP client and the
embedded client answer alike.

    status = Client("http://127.0.0.1:8080").status("lectures", DEFAULT)  # a BatchStatus, whoever answers
    status.ledger.seconds.accepted
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from k2d.filtering.distance import DiffOp
from k2d.filtering.policy import DEFAULT, Policy
from k2d.schema import BatchState, Metric, Reason, Status
from k2d.store.manifest import Manifest


class Request(BaseModel):
    """A request body: unknown members are refused, a typo must fail."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Document(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True)

    def as_json(self) -> dict[str, Any]:
        """As JSON values, under the names of the API."""
        return self.model_dump(mode="json", by_alias=True)


# ---- batches ------------------------------------------------------------------------------------------------------


class BatchOptions(Request):
    """What may differ from batch to batch. Whatever is left out is what the service is configured with."""

    name: str | None = Field(None, description="A name to find the batch by.", examples=["lectures-2026-11"])
    language: str | None = Field(
        None, description="`zh-en` (mixed prompt), `auto`, or a Whisper code.", examples=["zh-en"]
    )
    teacher: str | None = Field(None, description="Model that labels.", examples=["openai/whisper-large-v2"])
    validator: str | None = Field(
        None,
        description="Validators that check the labels, joined by `+`: models, `perturbed`, `probe:DIGEST`, "
        "`second-decode`.",
        examples=["openai/whisper-base"],
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


class LedgerSeconds(Document):
    """in = accepted + salvaged + rejected + quarantined + silence, exact in milliseconds."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    input: float = Field(alias="in", examples=[252.4])
    accepted: float = Field(description="Of chunks kept whole.", examples=[201.2])
    salvaged: float = Field(description="Of good segments of other chunks.", examples=[8.0])
    rejected: float = Field(examples=[12.0])
    quarantined: float = Field(examples=[18.0])
    silence: float = Field(examples=[13.2])


class ChunkCounts(Document):
    """Chunks kept whole, kept in part, and not kept at all."""

    accepted: int = Field(examples=[14])
    salvaged: int = Field(description="Kept in part.", examples=[1])
    rejected: int = Field(examples=[1])


class RecordingCounts(Document):
    """How the recordings of a batch ended so far."""

    total: int = Field(examples=[14])
    labeled: int = Field(examples=[12])
    quarantined: int = Field(examples=[2])
    pending: int = Field(
        description="Without a result, or with facts of an earlier version: `k2d resume`.", examples=[0]
    )


class Ledger(Document):
    """Where every second of the batch went under a policy, over the recordings that are finished."""

    batch: str = Field(examples=["b_0f3c9a1be2d47c55"])
    name: str = Field(examples=["lectures-2026-11"])
    policy: str = Field(examples=["evidence"])
    seconds: LedgerSeconds
    chunks: ChunkCounts
    recordings: RecordingCounts
    wall_s: float = Field(description="Worker time spent, in seconds.", examples=[48.1])


class Jobs(Document):
    """What the queue knows of the batch now."""

    jobs_queued: int = Field(examples=[3])
    jobs_running: int = Field(examples=[1])
    jobs_failed: int = Field(examples=[0])
    last_error: str | None = Field(None, examples=[None])
    seconds_in_flight: float = Field(
        description="Of unfinished recordings, what the teacher has transcribed.", examples=[61.3]
    )
    updated_at: float | None = Field(None, description="Unix time of the last progress.", examples=[1795000000.0])


class QuarantinedRecording(Document):
    """A recording that was set aside, and why."""

    recording: str = Field(examples=["broken.mp3"])
    reason: str | None = Field(examples=["not_audio"])
    detail: str | None = Field(examples=["no audio stream was found in the file"])
    duration_s: float = Field(examples=[0.0])


class BatchSummary(Document):
    """The part of a batch that never changes."""

    id: str = Field(examples=["b_0f3c9a1be2d47c55"])
    name: str = Field(examples=["lectures-2026-11"])
    created_at: str = Field(examples=["2026-11-22T14:00:00+00:00"])
    recordings: int = Field(examples=[14])
    teacher: str = Field(examples=["openai/whisper-large-v2"])
    validator: str = Field(examples=["openai/whisper-base"])
    language: str = Field(examples=["zh-en"])


class BatchListed(BatchSummary):
    """A batch in a list."""

    state: BatchState
    pending: int = Field(examples=[0])


class BatchStatus(BatchSummary):
    """A batch's state and ledger."""

    state: BatchState
    ledger: Ledger
    jobs: Jobs | None = Field(description="null when there is no queue, or it does not answer")
    quarantined: list[QuarantinedRecording] = Field(description="the first 100")
    quarantined_total: int = Field(examples=[1])


class BatchList(Document):
    """A page of batches, newest first."""

    batches: list[BatchListed]
    next: str | None = Field(description="cursor of the next page, null at the end")


class Forecast(Document):
    """What a batch would cost, and what the estimate is based on; nothing was stored or queued."""

    recordings: int = Field(examples=[14])
    unknown: int = Field(description="recordings whose header does not tell their length", examples=[1])
    hours: float = Field(examples=[0.0701])
    windows: int = Field(examples=[18])
    estimated_s: float = Field(examples=[50.5])
    basis: str = Field(examples=["5.1 × real time with 1 worker: measured on 12 recordings of batch lectures"])


class Resumed(Document):
    """Batches whose missing recordings were queued again, or done."""

    batches: dict[str, int] = Field(description="recordings missing, by batch id", examples=[{"b_0f3c9a1be2d47c55": 3}])


class PartialResult(Document):
    """How far a batch is, for a progress bar."""

    seconds: float = Field(description="Of audio transcribed so far.")
    recordings: int = Field(description="Finished.")
    total: int
    error: str | None = Field(None, description="What a worker failed at last and will try again.")


# ---- chunks -------------------------------------------------------------------------------------------------------


class ChunkFilter(Request):
    """Which chunks of a batch to list; null means any."""

    verdict: Status | None = None
    reason: Reason | None = None
    recording: str | None = Field(None, description="Exact source name.")
    text: str | None = Field(None, description="Part of the teacher's text.", max_length=200)
    min_distance: float | None = Field(None, description="Least value of the policy's metric.")
    max_distance: float | None = Field(None, description="Largest value of the policy's metric.")


class ChunkRow(Document):
    """One chunk in a list."""

    id: str = Field(examples=["2f1d0c…-00003"])
    recording: str = Field(examples=["lecture-01.m4a"])
    index: int
    start_s: float = Field(examples=[61.3])
    end_s: float = Field(examples=[88.9])
    teacher_text: str = Field(examples=["今天這堂課我們先來 review 一下"])
    validator_texts: list[str] = Field(
        description="Of the first validator, one for each perturbation.", examples=[["今天這堂課我們先來 review 一下"]]
    )
    validators: str = Field(examples=["model:openai/whisper-base"])
    perturbations: list[str] = Field(examples=[["as is"]])
    distances: dict[Metric, float | None] = Field(
        description="By every metric; `evidence` (risk) is null when the policy has no weights."
    )
    teacher_repetition: int
    validator_repetition: int
    phrase: str | None
    verdict: Status
    reason: Reason
    salvaged_s: float = Field(description="Of a chunk that is not kept: seconds of its segments that are.")


class ChunkList(Document):
    """A page of chunks."""

    chunks: list[ChunkRow]
    next: str | None = Field(description="cursor of the next page, null at the end")


class DiffStep(Document):
    """One step of the alignment of teacher and validator: tokens of both, and the text as each wrote it."""

    op: DiffOp
    teacher: list[str]
    validator: list[str]
    teacher_text: str
    validator_text: str


class HypothesisDetail(Document):
    """What one validator transcribed of the audio, as it is or perturbed."""

    validator: str = Field(examples=["model:openai/whisper-base"])
    perturbation: str = Field(examples=["as is"])
    text: str = Field(description="Phonemes, where `is_phonemes`.")
    avg_logprob: float
    forced_logprobs: list[float] = Field(
        description="The label's mean log-probability in each segment under the validator; empty where it gives none."
    )
    expected_token_errors: list[float] = Field(
        description="Share of each segment's tokens it expects to be wrong; empty as `forced_logprobs`."
    )
    is_phonemes: bool
    diff: list[DiffStep] = Field(description="The label beside this text; empty for phonemes.")


class SegmentDetail(Document):
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


class ChunkDetail(Document):
    """Everything known of one chunk, and why it is kept or not."""

    id: str
    recording_id: str
    index: int
    start_s: float
    end_s: float
    duration_s: float
    teacher_text: str
    validators: str
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


# ---- policies -----------------------------------------------------------------------------------------------------


class PreviewRequest(Request):
    """A policy to try on stored facts."""

    batches: list[str] = Field(min_length=1, description="Batch ids or names.", examples=[["lectures-2026-11"]])
    policy: Policy = Field(default_factory=lambda: DEFAULT)
    curve: list[Metric] | None = Field(None, description="Metrics to draw over α; the policy's own when left out.")


class ReasonCounts(Document):
    """How much a reason stands for."""

    chunks: int
    seconds: float


class CurvePoint(Document):
    """What is kept at one α."""

    alpha: float = Field(examples=[0.4])
    chunks: int = Field(examples=[14])
    seconds: float = Field(examples=[201.2])
    salvaged: float = Field(description="Seconds salvaged of the other chunks.", examples=[8.0])


class ChunkSeconds(Document):
    """Seconds of chunks kept whole, salvaged of the others, and rejected."""

    accepted: float
    salvaged: float
    rejected: float

    @property
    def total(self) -> float:
        return self.accepted + self.salvaged + self.rejected


class Preview(Document):
    """What a policy would keep; no model ran for it."""

    policy: Policy
    batches: list[str]
    chunks: ChunkCounts
    seconds: ChunkSeconds
    hours_accepted: float
    hours_salvaged: float
    salvage_sample: float = Field(
        description="Share of the chunks in which salvage was counted; below 1 it is estimated from them.",
        examples=[1.0],
    )
    reasons: dict[Reason, ReasonCounts] = Field(description="Of whole chunks, whatever is salvaged of them.")
    curve: dict[Metric, list[CurvePoint]]


class PolicyListed(Document):
    """A preset and what it does."""

    policy: Policy
    explanation: str


# ---- datasets -----------------------------------------------------------------------------------------------------


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


class DatasetState(Document):
    """A dataset that is being frozen, or ready with its manifest."""

    name: str = Field(examples=["lectures-v1"])
    state: Literal["building", "ready", "failed"]
    error: str | None = None
    manifest: Manifest | None = None


class DatasetListed(Document):
    """A dataset in a list."""

    name: str = Field(examples=["lectures-v1"])
    created_at: str
    digest: str
    rows: int = Field(examples=[12])
    hours: float = Field(description="Of speech that is kept.", examples=[0.04])
    bytes: int = Field(description="Of its shards.", examples=[1_300_000])


class DatasetList(Document):
    """All datasets, by name."""

    datasets: list[DatasetListed]


class Health(Document):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str
