"""The JSON documents of the labeling API, as pydantic models.

The API, the HTTP client and the embedded client return the same ones:

    status = Client("http://127.0.0.1:8080").status("lectures")  # a BatchStatus
    print(status.ledger.seconds.accepted)
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from k2d.filtering.distance import DiffOp
from k2d.filtering.policy import DEFAULT, Policy
from k2d.schema import BatchState, Metric, Reason, Script, Status
from k2d.settings import CHANNELS
from k2d.store.manifest import Manifest
from k2d.store.reviews import ReviewOrder, ReviewVerdict

# the most that a request may have of anything: a request is held in memory, and its parts are looked up one by one
URI_CHARACTERS: Final = 8192
MODEL_CHARACTERS: Final = 1000  # a path
MODELS_CHARACTERS: Final = 8000  # validators joined by "+"
BATCHES: Final = 1000
MOST_COMPARED: Final = 20_000  # chunks, when validators are compared; chosen: a minute of reading
DECLARED: Final = 1024  # files in one declaration
LABEL_ID_CHARACTERS: Final = 200  # of a chunk's or a segment's id

NameOrId = Annotated[str, Field(max_length=200)]


class ApiRequest(BaseModel):
    """Base class of request bodies. Unknown members are refused, so that a typo is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ApiDocument(BaseModel):
    """Base class of responses."""

    model_config = ConfigDict(frozen=True)

    def as_json(self) -> dict[str, Any]:
        """The document as JSON values, under the API's names."""
        return self.model_dump(mode="json", by_alias=True)


# ---- batches ------------------------------------------------------------------------------------------------------


class BatchOptions(ApiRequest):
    """The options of a batch. What is left out is taken from the service's settings."""

    name: str | None = Field(
        None, description="Name of the batch; its id when left out.", examples=["lectures-2026-11"]
    )
    language: str | None = Field(
        None, max_length=20, description="`zh-en` (mixed prompt), `auto`, or a Whisper code.", examples=["zh-en"]
    )
    teacher: str | None = Field(
        None, max_length=MODEL_CHARACTERS, description="Model that labels.", examples=["openai/whisper-large-v2"]
    )
    validator: str | None = Field(
        None,
        max_length=MODELS_CHARACTERS,
        description="Validators that check the labels, joined by `+`: models, `perturbed`, `probe:DIGEST`, "
        "`second-decode`.",
        examples=["openai/whisper-base"],
    )
    beam_size: int | None = Field(
        None, ge=1, le=32, description="Beams with which the teacher decodes; 1 is greedy.", examples=[5]
    )
    rescore: bool | None = Field(
        None,
        description="Decode each chunk again without timestamps, and take the text that the teacher finds most "
        "probable.",
    )
    terms: str | None = Field(
        None,
        max_length=100_000,
        description="Names and jargon that the teacher is told before each window, one a line or comma-separated; an "
        "empty text means none. It reads 223 tokens: the first 40 to 80 terms.",
        examples=["NTU COOL, gradient descent, 余思齊"],
    )
    vad: bool | None = Field(None, description="Skip audio in which a voice activity detector finds no speech.")
    condition_on_previous_text: bool | None = Field(None, description="Give each window the previous window's text.")
    channels: str | None = Field(
        None,
        pattern=CHANNELS,
        description="`mix` (the mean of a file's channels), `each` (every channel is a recording of its own, named "
        "NAME#1 …), or a channel's number from 1.",
        examples=["mix"],
    )
    keep_partial: bool | None = Field(
        None,
        description="Label what is before the damage in damaged and cut-off files; the rest counts as quarantined.",
    )

    @field_validator("channels", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class BatchByReference(BatchOptions):
    """A batch of recordings that the service reads itself. Every URI must lie under a prefix in K2D_ALLOWED_SOURCES."""

    sources: list[Annotated[str, Field(max_length=URI_CHARACTERS)]] = Field(
        min_length=1,
        max_length=1_000_000,
        examples=[["file:///srv/audio/lecture-01.m4a", "s3://corpus/lecture-02.flac"]],
    )


class BatchUpload(BatchOptions):
    """A batch of uploaded recordings: `multipart/form-data` with one `files` part for each."""

    files: list[Annotated[str, Field(json_schema_extra={"format": "binary"})]]


class SourceDeclaration(ApiRequest):
    """A file that is going to be sent."""

    name: str = Field(min_length=1, max_length=4096, examples=["week-1/monday.m4a"])
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Of its bytes, in hex.")
    size_bytes: int = Field(ge=0, lt=1 << 50)


class SourceDeclarations(ApiRequest):
    """Files that are going to be sent to an open batch."""

    sources: list[SourceDeclaration] = Field(min_length=1, max_length=DECLARED)


class MissingSource(ApiDocument):
    """A declared file whose bytes are not there."""

    name: str
    sha256: str
    offset: int = Field(description="Bytes that are there, of an upload that broke off: send the rest.", examples=[0])


class MissingSources(ApiDocument):
    """The declared files that have to be sent. Those that are there, from any batch, do not."""

    missing: list[MissingSource]


class UploadedSource(ApiDocument):
    """A file of an open batch, or as much of it as is there."""

    name: str
    offset: int = Field(description="Bytes that are there.")
    complete: bool
    sha256: str | None = Field(None, description="null while it is not complete")


class OpenBatch(ApiDocument):
    """A batch that takes files until it is closed."""

    id: str = Field(description="For the addresses below /v1/batches.", examples=["d_3f1c0a9b1be2d47c"])
    name: str = Field(examples=["lectures-2026-11"])
    state: BatchState = BatchState.OPEN


class NoLabelSeconds(ApiDocument):
    """Seconds of labeled recordings that no chunk covers, by how they sound.

    Quiet is what is more than 20 dB below the mean power of its recording, or below -70 dB of full scale.
    """

    pauses: float = Field(0.0, description="Quiet for less than 2 s.", examples=[9.1])
    quiet: float = Field(0.0, description="Quiet for longer.", examples=[0.0])
    sound: float = Field(
        0.0, description="Not quiet: music, noise, or speech that the teacher left out.", examples=[4.1]
    )
    unknown: float = Field(0.0, description="Not measured: labeled by a version before 0.3.", examples=[0.0])


class LedgerSeconds(ApiDocument):
    """Seconds of input by outcome: in = accepted + salvaged + rejected + quarantined + no label, exact to 1 ms."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    input: float = Field(alias="in", examples=[252.4])
    accepted: float = Field(description="Chunks kept whole.", examples=[201.2])
    salvaged: float = Field(description="Good segments of other chunks.", examples=[8.0])
    rejected: float = Field(examples=[12.0])
    quarantined: float = Field(examples=[18.0])
    silence: float = Field(
        description="No label: what no chunk covers of labeled recordings; the ledger's `no_label` says how it sounds.",
        examples=[13.2],
    )


class ChunkCounts(ApiDocument):
    """Numbers of chunks kept whole, kept in part, and not kept."""

    accepted: int = Field(examples=[14])
    salvaged: int = Field(description="Kept in part.", examples=[1])
    rejected: int = Field(examples=[1])


class RecordingCounts(ApiDocument):
    """Numbers of recordings of a batch by outcome."""

    total: int = Field(examples=[14])
    labeled: int = Field(examples=[12])
    quarantined: int = Field(examples=[2])
    duplicates: int = Field(
        default=0, description="Labeled ones that hold the same audio as another; a dataset has it once."
    )
    pending: int = Field(
        description="Without a result, or with facts of an earlier version; `k2d resume` processes them.", examples=[0]
    )
    unknown_length: int = Field(
        0, description="Quarantined recordings of which no length is known: they add nothing to `in`.", examples=[0]
    )


class Ledger(ApiDocument):
    """What a policy makes of every second of the finished recordings of a batch."""

    batch: str = Field(examples=["b_0f3c9a1be2d47c55"])
    name: str = Field(examples=["lectures-2026-11"])
    policy: str = Field(examples=["evidence"])
    seconds: LedgerSeconds
    no_label: NoLabelSeconds = Field(default=NoLabelSeconds(), description="Adds up to `silence` of `seconds`.")
    chunks: ChunkCounts
    recordings: RecordingCounts
    wall_s: float = Field(description="Worker time spent on them, in seconds.", examples=[48.1])


class Jobs(ApiDocument):
    """The batch's jobs in the queue."""

    jobs_queued: int = Field(examples=[3])
    jobs_running: int = Field(examples=[1])
    jobs_failed: int = Field(examples=[0])
    last_error: str | None = Field(None, examples=[None])
    waiting_for: str | None = Field(
        None,
        description="What keeps the jobs from going on, as long as it does; they go on by themselves.",
        examples=[None],
    )
    seconds_in_flight: float = Field(
        description="Audio of unfinished recordings that the teacher has transcribed.", examples=[61.3]
    )
    times_real_time: float | None = Field(
        None,
        description="Seconds of audio that all workers label and validate a second, since they began, without what was "
        "there already; null before.",
        examples=[5.1],
    )
    updated_at: float | None = Field(None, description="Unix time of the last progress.", examples=[1795000000.0])
    audio_s: float | None = Field(
        None, description="Audio of the whole batch by its files' headers; null until it is planned.", examples=[252.4]
    )


class QuarantinedRecording(ApiDocument):
    """A quarantined recording, and why."""

    recording: str = Field(examples=["broken.mp3"])
    reason: str | None = Field(examples=["not_audio"])
    detail: str | None = Field(examples=["no audio stream was found in the file"])
    duration_s: float = Field(examples=[0.0])


class RecordingNotes(ApiDocument):
    """What was decided about a recording's tracks, channels and clock."""

    recording: str = Field(examples=["lecture.mkv"])
    notes: list[str] = Field(examples=[["Track 1 of 2 is labeled: marked as default."]])


class LabelingOptions(ApiDocument):
    """How the recordings of a batch are decoded, labeled and validated, beside its models, language and terms."""

    beam_size: int = Field(examples=[5])
    rescore: bool = Field(description="Whether uncertain chunks are decoded again without timestamps.")
    vad: bool = Field(description="Whether audio without voice activity is skipped.")
    condition_on_previous_text: bool
    channels: str = Field(description="`mix`, `each`, or a channel's number.", examples=["mix"])
    keep_partial: bool = Field(description="Whether damaged files are labeled up to the damage.")


class BatchSummary(ApiDocument):
    """The properties of a batch that never change."""

    id: str = Field(examples=["b_0f3c9a1be2d47c55"])
    name: str = Field(examples=["lectures-2026-11"])
    created_at: str = Field(examples=["2026-11-22T14:00:00+00:00"])
    recordings: int = Field(examples=[14])
    teacher: str = Field(examples=["openai/whisper-large-v2"])
    validator: str = Field(examples=["openai/whisper-base"])
    language: str = Field(examples=["zh-en"])
    terms: list[str] = Field(default=[], description="What the teacher was told.", examples=[["NTU COOL"]])
    options: LabelingOptions | None = Field(None, description="null only of a damaged batch")


class BatchItem(BatchSummary):
    """A batch in a list. Of a damaged one only `id`, `created_at` and `error` are known."""

    state: BatchState
    pending: int = Field(examples=[0])
    hours: float = Field(0.0, description="Hours of audio in the index of the batch.", examples=[512.25])
    error: str | None = Field(None, description="Why the record of a damaged batch cannot be read.")


class Forgotten(ApiDocument):
    """What was, or would be, removed of a recording: numbers of files."""

    recording_id: str
    results: int = Field(description="of batches, which have it missing then")
    facts: int
    hypotheses: int
    labels: int
    examinations: int
    reviews: int = Field(0, description="of its labels' segments")
    journals: int = Field(0, description="answers for labels that are not finished")
    datasets: list[str] = Field(description="datasets that have it; they stay as they are")
    datasets_unreadable: list[str] = Field(default=[], description="datasets that cannot be read, and may have it")
    unreadable: list[str] = Field(
        default=[], description="damaged shards, which may be of the recording: `k2d store check --repair` moves them"
    )


class VersionCount(ApiDocument):
    """Recordings that the same versions of k2d labeled and validated; 0 and empty: not recorded, as before 0.3."""

    label: int = Field(description="version of the labeling stage", examples=[2])
    facts: int = Field(description="version of the evidence", examples=[4])
    labeled_by: str = Field(examples=["0.3.0"])
    validated_by: str = Field(examples=["0.3.0"])
    recordings: int = Field(examples=[14])


class ProcessAtWork(ApiDocument):
    """A process that labels recordings of a batch."""

    host: str = Field(examples=["gpu1"])
    pid: int = Field(description="its id on that host", examples=[4711])
    command: str = Field(description="without its arguments", examples=["k2d label"])
    since: str = Field(description="ISO 8601, by its clock", examples=["2026-11-23T09:30:00+00:00"])


class BatchStatus(BatchSummary):
    """A batch's state and ledger."""

    state: BatchState
    ledger: Ledger
    jobs: Jobs | None = Field(description="null without a queue, or when Redis does not answer")
    processes: list[ProcessAtWork] = Field(
        [], description="Of a running batch without a running job: who is at work on it, such as `k2d label`."
    )
    eta_s: float | None = Field(
        None,
        description="Seconds until the recordings without a result are labeled and validated, if workers go on at this "
        "speed; never 0; null if unknown.",
        examples=[3120.0],
    )
    quarantined: list[QuarantinedRecording] = Field(description="the first 100")
    quarantined_total: int = Field(examples=[1])
    damaged: list[str] = Field(
        [],
        description="Results and facts of recordings that cannot be read, the first 100, and what to do; these "
        "recordings count as pending.",
    )
    partial: int = Field(0, description="Labeled recordings whose end is quarantined (`keep_partial`).", examples=[0])
    notes: list[RecordingNotes] = Field(
        [], description="What was decided about recordings' tracks, channels and clocks; of the first 100 with any."
    )
    versions: list[VersionCount] = Field(
        [], description="By which versions of k2d the recordings were labeled and validated; more than one: a mixture."
    )
    terms_left_out: list[str] | None = Field(
        default=None,
        description="Terms for which the teacher's prompt has no room, in the answer to a new batch; null if unknown: "
        "the teacher is on a server, whose log has them, or was not fetched yet.",
    )


class BatchList(ApiDocument):
    """One page of batches, newest first."""

    batches: list[BatchItem]
    next: str | None = Field(description="cursor of the next page, null at the end")


class Forecast(ApiDocument):
    """The estimated cost of a batch, and what the estimate is based on. Nothing was stored or queued."""

    recordings: int = Field(examples=[14])
    unknown: int = Field(description="Files whose header states no length; also those in `not_audio`.", examples=[1])
    not_audio: list[str] = Field(default=[], description="Names of files that are not audio, or cannot be read.")
    no_channel: dict[str, str] = Field(
        default={}, description="What is wrong with files that lack the channel asked for, by name."
    )
    done: int = Field(
        0, description="Recordings that are labeled already with these models and options; no model runs for them."
    )
    done_hours: float = Field(0.0, description="Their audio.")
    labeled: int = Field(
        0, description="Recordings that this teacher has labeled already, and that only have to be validated."
    )
    at_most: bool = Field(
        False,
        description="Some of the files were never read on this machine, so it is not known what is there of them: what "
        "is said to be new is at most that.",
    )
    hours: float = Field(description="Audio of all of them.", examples=[0.0701])
    windows: int = Field(description="What the teacher decodes of what is new.", examples=[18])
    estimated_s: float | None = Field(
        description="Seconds until it is labeled and validated; null if no batch with these models was measured.",
        examples=[50.5],
    )
    basis: str = Field(
        description="What the speed was measured with and on, or why no time can be estimated.",
        examples=[
            "5.1 × real time with 1 worker: measured on 12 recordings of batch lectures, teacher "
            "openai/whisper-large-v2 (ctranslate2 float16 on cuda), validator openai/whisper-base"
        ],
    )


class ResumeResult(ApiDocument):
    """The batches whose missing recordings were queued again or processed."""

    batches: dict[str, int] = Field(description="missing recordings by batch id", examples=[{"b_0f3c9a1be2d47c55": 3}])
    failed: dict[str, str] = Field(default={}, description="why a batch was not resumed, by batch id")
    at_work: dict[str, str] = Field(
        default={}, description="the process without a job that is at work on a batch, which was left out, by batch id"
    )


class PartialResult(ApiDocument):
    """Progress of a batch, for a progress bar."""

    seconds: float = Field(description="Audio that is labeled so far.")
    validated_s: float = Field(0.0, description="Audio whose labels are validated so far.")
    audio_s: float | None = Field(
        None, description="Audio of the whole batch: of what is not done by the files' headers; null where unknown."
    )
    recordings: int = Field(description="Finished recordings.")
    total: int = Field(description="All recordings of the batch.")
    recordings_before: int = Field(0, description="Recordings that were finished before this run began.")
    before_s: float = Field(0.0, description="Their audio.")
    times_real_time: float | None = Field(
        None, description="Seconds of audio on which models work in a second; what was there already does not count."
    )
    error: str | None = Field(None, description="The last error of a job that is going to be retried.")


# ---- chunks -------------------------------------------------------------------------------------------------------


class ChunkFilter(ApiRequest):
    """Conditions on the chunks to list; null means any."""

    verdict: Status | None = None
    reason: Reason | None = None
    recording: str | None = Field(
        None, max_length=4096, description="Name of the recording, or an end of its path that only it has."
    )
    text: str | None = Field(None, description="Substring of the teacher's text.", max_length=200)
    min_distance: float | None = Field(None, description="Least value of the policy's metric.")
    max_distance: float | None = Field(None, description="Largest value of the policy's metric.")


class ChunkRow(ApiDocument):
    """One chunk in a list."""

    id: str = Field(examples=["2f1d0c…-00003"])
    recording: str = Field(examples=["lecture-01.m4a"])
    index: int
    start_s: float = Field(examples=[61.3])
    end_s: float = Field(examples=[88.9])
    teacher_text: str = Field(examples=["今天這堂課我們先來 review 一下"])
    validator_texts: list[str] = Field(
        description="The first validator's texts, one for each perturbation.",
        examples=[["今天這堂課我們先來 review 一下"]],
    )
    validators: str = Field(examples=["model:openai/whisper-base"])
    perturbations: list[str] = Field(examples=[["as is"]])
    distances: dict[Metric, float | None] = Field(
        description="The value of every metric; `evidence` (the risk) is null when the policy has no weights."
    )
    teacher_repetition: int
    validator_repetition: int
    phrase: str | None
    verdict: Status
    reason: Reason
    salvaged_s: float = Field(description="Seconds of salvaged segments, if the chunk is not kept whole.")


class ChunkList(ApiDocument):
    """One page of chunks."""

    chunks: list[ChunkRow]
    next: str | None = Field(description="cursor of the next page, null at the end")


class DiffStep(ApiDocument):
    """One step of the alignment of teacher and validator: the tokens of both, and both texts as written."""

    op: DiffOp
    teacher: list[str]
    validator: list[str]
    teacher_text: str
    validator_text: str


class HypothesisDetail(ApiDocument):
    """One validator's transcript of the chunk, from its audio unchanged or perturbed."""

    validator: str = Field(examples=["model:openai/whisper-base"])
    perturbation: str = Field(examples=["as is"])
    text: str = Field(description="Phonemes if `is_phonemes`.")
    avg_logprob: float
    forced_logprobs: list[float] = Field(
        description="The label's mean forced log-probability in each segment under the validator; empty if it has none."
    )
    expected_token_errors: list[float] = Field(
        description="Share of each segment's tokens that the validator expects to be wrong; empty if it has none."
    )
    is_phonemes: bool
    diff: list[DiffStep] = Field(description="Alignment of the label and this text; empty for phonemes.")


class SegmentDetail(ApiDocument):
    """A segment of the label, its evidence, and the policy's verdict on it alone."""

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
    origin: str = Field(
        description="The decode that the text comes from.", examples=["teacher", "second decode, beam 5"]
    )
    teacher_text: str | None = Field(description="The teacher's own text, where another was chosen.")
    evidence: dict[str, float | int | bool]
    verdict: Status | None = Field(
        description="null under a policy that compares a distance: those judge whole chunks only."
    )
    reason: Reason | None
    risk: float | None
    contributions: dict[str, float]
    salvaged: bool


class ChunkDetail(ApiDocument):
    """Everything known about one chunk, and why it is kept or not."""

    id: str
    batch: str | None = Field(None, description="Name of the newest batch that has this chunk.")
    recording: str | None = Field(None, description="Name of its recording in that batch.")
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
        description="What the bias and each feature add to the log-odds of the risk; empty if a distance decides.",
        examples=[{"bias": -4.0, "disagreement": 3.1, "forced_logprob": 0.4}],
    )
    segments: list[SegmentDetail]
    salvaged_s: float
    verdict: Status
    reason: Reason
    policy: str
    explanation: str = Field(description="The policy in plain language.")


# ---- policies -----------------------------------------------------------------------------------------------------


class PreviewRequest(ApiRequest):
    """A policy to apply to stored facts."""

    batches: list[NameOrId] = Field(
        min_length=1, max_length=BATCHES, description="Batch ids or names.", examples=[["lectures-2026-11"]]
    )
    policy: Policy = Field(default_factory=lambda: DEFAULT)
    curve: list[Metric] | None = Field(
        None,
        max_length=len(Metric),
        description="Metrics for which to return a curve over α; the policy's own when left out.",
    )


class AuditRequest(ApiRequest):
    """A policy to audit: which speech does it leave out?"""

    batches: list[NameOrId] = Field(
        min_length=1, max_length=BATCHES, description="Batch ids or names.", examples=[["lectures-2026-11"]]
    )
    policy: Policy = Field(default_factory=lambda: DEFAULT)
    confidence: float = Field(0.95, ge=0.5, lt=1, description="Of the bands, and of all warnings together.")


class ReasonCounts(ApiDocument):
    """How many chunks and seconds have a reason."""

    chunks: int
    seconds: float


class CurvePoint(ApiDocument):
    """What is kept at one value of α."""

    alpha: float = Field(examples=[0.4])
    chunks: int = Field(examples=[14])
    seconds: float = Field(examples=[201.2])
    salvaged: float = Field(description="Seconds salvaged from the other chunks.", examples=[8.0])


class ChunkSeconds(ApiDocument):
    """Seconds of chunks kept whole, salvaged from the others, and rejected."""

    accepted: float
    salvaged: float
    rejected: float

    @property
    def total(self) -> float:
        return self.accepted + self.salvaged + self.rejected


class Preview(ApiDocument):
    """What a policy would keep, computed from stored facts; no model runs."""

    policy: Policy
    batches: list[str]
    chunks: ChunkCounts
    seconds: ChunkSeconds
    hours_accepted: float
    hours_salvaged: float
    salvage_sample: float = Field(
        description="Share of the chunks that salvage was computed for; below 1 it is an estimate from them.",
        examples=[1.0],
    )
    reasons: dict[Reason, ReasonCounts] = Field(description="Reasons of whole chunks, without regard to salvage.")
    curve: dict[Metric, list[CurvePoint]]


class PolicyItem(ApiDocument):
    """A policy preset and what it does."""

    policy: Policy
    explanation: str


# ---- reviews ------------------------------------------------------------------------------------------------------


class DrawRequest(ApiRequest):
    """Segments to draw for review."""

    batches: list[str] = Field(min_length=1, max_length=100, examples=[["lectures-2026-11"]])
    policy: Policy = Field(default_factory=lambda: DEFAULT, description="Whose rules say what may be drawn.")
    count: int = Field(400, ge=1, le=20_000, description="Draws; a segment that is drawn twice is shown once.")
    seed: int = Field(0, ge=0, le=2**31, description="The same seed draws the same segments.")
    order: ReviewOrder = Field(
        ReviewOrder.RANDOM,
        description="`random`: the sample that calibration needs. `value`: the segments that teach most, near α and "
        "unlike one another; nothing can be proved by them.",
    )


class DrawItem(ApiDocument):
    """A draw: segments to review, in a fixed order."""

    id: str = Field(examples=["d_0123456789abcdef"])
    created_at: str
    batches: list[str] = Field(description="Ids of the batches that segments were drawn from.")
    deleted: list[str] = Field(
        default=[],
        description="Those of them that were deleted, with their labels: nothing more can be heard or calibrated. "
        "Answers and calibrations are kept.",
    )
    order: ReviewOrder
    policy: str = Field(description="Name of the policy whose rules say what may be drawn.")
    draws: int
    segments: int = Field(description="Different segments among the draws.")
    reachable: int = Field(description="Segments that they were drawn from.")


class DrawList(ApiDocument):
    """Draws, newest first."""

    draws: list[DrawItem]


class ReviewCandidate(ApiDocument):
    """What validators heard in a segment, where it differs from the label."""

    text: str
    validators: list[str]
    diff: list[DiffStep] = Field(description="From the label to this text.")


class ReviewItem(ApiDocument):
    """A segment to review."""

    id: str = Field(description="Id of the segment.", examples=["2f1d0c…-00003.001"])
    number: int = Field(description="Its place in the order of the draw, from 0.")
    recording: str
    start_s: float
    end_s: float
    label: str
    before: str = Field(description="The label of what comes before it in its chunk.")
    after: str = Field(description="The label of what comes after it in its chunk.")
    stops: list[tuple[int, int]] = Field(
        description="Parts of the label in which a candidate differs: from, to, in characters."
    )
    candidates: list[ReviewCandidate]
    audio: str = Field(description="Address of the segment's audio, relative to the API.")


class ReviewItems(ApiDocument):
    """The next segments for a reviewer."""

    segments: list[ReviewItem]
    left: int = Field(description="How many there are with these.")


class ReviewRequest(ApiRequest):
    """What a reviewer says of a segment's label."""

    id: str = Field(
        pattern="^[0-9A-Za-z_-]{8,64}$",
        description="Chosen by the client, for instance a UUID: a review that is sent again is stored once.",
    )
    segment: str = Field(max_length=200, description="Id of the segment.", examples=["2f1d0c…-00003.001"])
    verdict: ReviewVerdict = Field(
        description="`right`: the label is what is said; `text`: `reference` is; `nothing`: nothing is said; `wrong`: "
        "the label is wrong; `unknown`: the reviewer cannot tell; `undone`: takes their earlier review back."
    )
    reference: str | None = Field(None, max_length=10_000, description="What is said; for `text` only.")
    draw: str | None = Field(None, pattern="^d_[0-9a-f]{16}$", description="In which the segment was shown.")
    seconds: float | None = Field(None, ge=0, le=1e6, description="From hearing to answering.")


class ReviewRequests(ApiRequest):
    """Reviews to store, in this order."""

    reviews: list[ReviewRequest] = Field(min_length=1, max_length=1000)


class ReviewDocument(ApiDocument):
    """A stored review."""

    id: str
    segment: str = Field(description="`<label key>-<chunk>.<segment>`: it holds for the label in every batch.")
    label: str
    verdict: ReviewVerdict
    reference: str | None
    reviewer: str
    at: str
    draw: str | None
    seconds: float | None
    counts: bool = Field(description="Whether it is its reviewer's newest of this segment, and not taken back.")


class ReviewList(ApiDocument):
    """A page of reviews."""

    reviews: list[ReviewDocument]
    next: str | None = Field(None, description="Cursor of the next page.")


class AgreementDocument(ApiDocument):
    """How well people agree who reviewed the same segments."""

    segments: int = Field(description="Reviewed by several people.")
    pairs: int
    same: int = Field(description="Pairs of reviews that say the same.")
    verdicts: int = Field(description="Pairs that agree whether the label is right.")
    kappa: float | None = Field(description="Cohen's kappa of that; null where chance alone would agree.")
    mer: float | None = Field(description="Edits between the two texts over the tokens of both, halved.")


class ClaimForecast(ApiDocument):
    """A claim that some more reviews would probably allow."""

    share: float = Field(description="Of the hours.")
    more: int = Field(description="Reviewed draws; 0: it may be possible now.")


class ReviewProgress(ApiDocument):
    """How far the review of a draw is, and what it may prove."""

    draw: DrawItem
    reviewed: int = Field(description="Segments that somebody reviewed.")
    mine: int = Field(description="Segments that the caller reviewed.")
    right: int = Field(description="Segments whose label is right.")
    draws: int = Field(description="Draws up to the last reviewed segment.")
    holes: int = Field(description="Draws among them that nobody reviewed: each counts as entirely wrong.")
    seconds: float | None = Field(description="Median seconds for a review.")
    target: float
    confidence: float
    claims: list[ClaimForecast] = Field(description="By their share of the hours; an estimate.")
    best: ClaimForecast | None = Field(description="The claim to work for.")
    agreement: AgreementDocument


class CalibrationRequest(ApiRequest):
    """A claim to prove by the reviews of a draw."""

    target: float = Field(0.08, gt=0, lt=1, description="Largest label MER of what is kept.")
    confidence: float = Field(0.95, ge=0.5, lt=1)
    name: str = Field("calibrated", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the policy.")


class CalibrationResult(ApiDocument):
    """What a calibration found: the policy, and what each α keeps at which label error."""

    id: str
    draw: str
    at: str
    by: str
    policy: Policy
    target: float
    confidence: float
    alpha: float | None = Field(description="The largest that is proved; null: none is.")
    draws: int
    holes: int
    pilot: int
    fit: dict[str, Any] | None
    curve: list[dict[str, Any]]
    reviews_needed: int | None
    notes: list[str]


# ---- datasets -----------------------------------------------------------------------------------------------------


class DatasetRequest(ApiRequest):
    """A dataset to freeze."""

    name: str = Field(examples=["lectures-v1"])
    batches: list[NameOrId] = Field(min_length=1, max_length=BATCHES, examples=[["lectures-2026-11"]])
    policy: Policy = Field(default_factory=lambda: DEFAULT)
    without: list[Annotated[str, Field(max_length=LABEL_ID_CHARACTERS)]] = Field(
        default=[],
        max_length=1_000_000,
        description="Ids of chunks and segments to leave out, as the dataset's rows name them.",
        examples=[["2f1d0c…-00003.001"]],
    )
    script: Script = Field(
        Script.AS_HEARD,
        description="Script of the labels: Taiwan's Traditional or Simplified characters, words unchanged. The column "
        "`raw_text` then has what the teacher wrote.",
    )
    gold: bool = Field(
        False,
        description="Whether segments with a reviewed text enter with that text, whatever the policy says, and other "
        "reviewed segments are left out. `raw_text` then has what the models wrote; `origins` says which texts are "
        "reviewed.",
    )
    allow_mixed: bool = Field(
        False, description="Whether recordings may have been labeled or validated by different versions of k2d."
    )


class DatasetState(ApiDocument):
    """The state of a dataset, with its manifest once it is ready."""

    name: str = Field(examples=["lectures-v1"])
    state: Literal["building", "ready", "failed"]
    error: str | None = None
    manifest: Manifest | None = None


class DatasetItem(ApiDocument):
    """A dataset in a list. Of a damaged one only `name` and `error` are known."""

    name: str = Field(examples=["lectures-v1"])
    created_at: str
    digest: str
    rows: int = Field(examples=[12])
    hours: float = Field(description="Hours of speech.", examples=[0.04])
    bytes: int = Field(description="Size of its shards.", examples=[1_300_000])
    error: str | None = Field(None, description="Why the manifest of a damaged dataset cannot be read.")


class DatasetList(ApiDocument):
    """All datasets, by name."""

    datasets: list[DatasetItem]


class Health(ApiDocument):
    """The process is up."""

    status: Literal["ok"] = "ok"
    version: str
