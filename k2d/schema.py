"""The nouns, frozen and typed. Every room uses these words for these things.

Times are seconds as floats rounded to milliseconds; `*_s` is relative to the start of the recording unless a
docstring says otherwise. Samples are int16, 16 kHz, mono.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
WINDOW_S = 30.0  # what Whisper's encoder hears at once
WINDOW_SAMPLES = int(WINDOW_S * SAMPLE_RATE_HZ)
MAX_CHUNK_S = WINDOW_S  # a chunk must fit one window, so that the validator and the student hear all of it

Samples = npt.NDArray[np.int16]  # shape (n,), 16 kHz mono


# ---- models and decoding ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which weights, in which engine, at which precision: everything of a model that can change a label."""

    reference: str  # as the operator wrote it
    digest: str  # sha256 over the weight files, hex
    engine: str  # "ctranslate2" | "transformers"
    compute_type: str  # "int8", "float16", "bfloat16", "float32" …
    device: str  # "cpu" | "cuda"

    @property
    def fingerprint(self) -> str:
        """What goes into keys and records: digest, engine and precision. The device is left out: it may change."""
        return f"{self.digest[:16]}:{self.engine}:{self.compute_type}"


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How one window of at most 30 s becomes text. Part of every label's key.

    Thresholds follow Whisper: a result is decoded again at the next temperature when its compression ratio exceeds
    `compression_ratio_threshold` or its mean log-probability falls below `log_prob_threshold`, unless it is silence
    (no-speech probability above `no_speech_threshold`). None switches a threshold off.
    """

    language: str = "zh-en"  # "zh-en" (mixed prompt), "auto" (per window), or a Whisper language code
    task: str = "transcribe"
    beam_size: int = 1
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    best_of: int = 5  # candidates sampled at temperatures above 0
    compression_ratio_threshold: float | None = 2.4
    log_prob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    without_timestamps: bool = False
    max_initial_timestamp_s: float = 1.0
    max_new_tokens: int | None = None  # None: what the model's context leaves
    initial_prompt: str | None = None  # terms and style, put before each window's previous text


@dataclass(frozen=True, slots=True)
class LongformOptions:
    """How a recording of any length becomes segments (Whisper's sequential algorithm). Part of every label's key."""

    decode: DecodeOptions = field(default_factory=DecodeOptions)
    condition_on_previous_text: bool = False
    prompt_reset_on_temperature: float = 0.5  # above it, the next window gets no previous text
    vad: bool = False  # skip windows without voice activity before the teacher hears them


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One engine input: samples of shape (n,), n ≤ 480,000, and the previous text's tokens (may be empty)."""

    samples: Samples
    prompt: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a window between two timestamps. Times are relative to the window's start."""

    start_s: float
    end_s: float
    text: str
    tokens: tuple[int, ...]  # text tokens only


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What an engine says about one window."""

    text: str  # without timestamps and special tokens
    tokens: tuple[int, ...]  # as generated: timestamps in, prompt and end-of-text out
    pieces: tuple[Piece, ...]
    resume_s: float | None  # the next window starts here, relative to this one; None: at this window's end
    avg_logprob: float  # natural log, mean over generated tokens and end-of-text
    no_speech_prob: float
    compression_ratio: float  # zlib, over UTF-8 bytes
    temperature: float  # the one that was accepted
    language: str  # as prompted; detected when the option is "auto"
    language_probs: tuple[tuple[str, float], ...] = ()  # highest first; filled when the option is "auto"


@dataclass(frozen=True, slots=True)
class TextScore:
    """How likely a model finds a given text for a window: teacher-forced, so it cannot loop."""

    tokens: tuple[int, ...]  # of the text, without timestamps and special tokens
    logprobs: tuple[float, ...]  # natural log of each token's probability among text tokens, given audio and context
    avg_logprob: float  # their mean; 0.0 for an empty text


# ---- speech -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recording:
    """Audio as it was found to be: decoded once from end to end, hashed over its samples."""

    id: str  # "rec_" + 24 hex: hash over the 16 kHz mono int16 samples
    duration_s: float
    samples: int
    peak: float  # largest |sample|, 0…1
    source_format: str  # e.g. "flac, 48000 Hz, 2 channels"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording between two of the teacher's timestamps, with the teacher's own signals."""

    start_s: float
    end_s: float
    text: str
    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    language: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Adjacent segments of one recording, at most 30 s from the first's start to the last's end.

    The audio of a chunk is cut to exactly that span: nobody hears what the label does not cover.
    """

    index: int  # position in its recording
    segments: tuple[Segment, ...]

    @property
    def start_s(self) -> float:
        return self.segments[0].start_s

    @property
    def end_s(self) -> float:
        return self.segments[-1].end_s

    @property
    def duration_s(self) -> float:
        return round(self.end_s - self.start_s, 3)

    @property
    def text(self) -> str:
        return join_text(segment.text for segment in self.segments)


def join_text(parts: Iterable[str]) -> str:
    """Join segment texts as Whisper writes them: each keeps its own leading space, the whole is stripped."""
    return "".join(parts).strip()


# ---- doubt --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """Raw counts of one alignment. Reference is the validator, hypothesis the teacher (as the paper's code has it)."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0  # in the reference only
    insertions: int = 0  # in the hypothesis only

    @property
    def edits(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        return self.hits + self.substitutions + self.deletions

    @property
    def hypothesis_length(self) -> int:
        return self.hits + self.substitutions + self.insertions

    @property
    def rate(self) -> float:
        """edits / |reference| as in the paper: unbounded, asymmetric. An empty reference counts as one token."""
        return self.edits / max(1, self.reference_length)

    @property
    def bounded(self) -> float:
        """edits / max(|reference|, |hypothesis|): at most 1, symmetric, 0 when both are empty."""
        return self.edits / max(1, self.reference_length, self.hypothesis_length)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True, slots=True)
class Distances:
    """How far two transcripts of one chunk are apart: counts, and what else the rules look at."""

    mixed: Counts  # over mixed tokens: MER
    phonemes: Counts  # over phonemes: PER
    teacher_repetition: int  # how often the most frequent character 6-gram occurs in the teacher's text
    validator_repetition: int  # the same for the validator; over several views, the least
    phrase: str | None  # the known hallucination phrase the teacher's text consists of, if it does
    zh_tokens: int  # Han characters in the teacher's normalised text
    en_tokens: int  # Latin/digit tokens in it


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """One row of a facts shard: all that a policy or a person wants to know of a chunk, without its audio."""

    id: str  # "{facts_key}-{index:05d}"
    recording_id: str
    index: int
    start_s: float
    end_s: float
    teacher_text: str
    segments: tuple[Segment, ...]
    validator: str  # "model:<reference>" or "perturbed:<reference>", so that a fallback is named as such
    views: tuple[str, ...]  # what the validator heard: ("as is",) or the perturbations
    validator_texts: tuple[str, ...]  # one for each view
    validator_avg_logprob: float  # mean over views
    distances: Distances  # counts are summed over views

    @property
    def duration_s(self) -> float:
        return round(self.end_s - self.start_s, 3)


class Metric(StrEnum):
    """What a policy compares with α."""

    MER = "mer"
    PER = "per"
    COMPOSITE = "composite"
    MER_BOUNDED = "mer_bounded"
    PER_BOUNDED = "per_bounded"
    COMPOSITE_BOUNDED = "composite_bounded"


class Status(StrEnum):
    """Where a second of input can end, apart from silence."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"


class Reason(StrEnum):
    """Why a chunk was accepted or rejected."""

    AGREEMENT = "agreement"  # distance ≤ α
    VALIDATOR_REPETITION = "validator_repetition"  # composite: only the validator loops, the label is kept unchecked
    DISAGREEMENT = "disagreement"  # distance > α
    TEACHER_REPETITION = "teacher_repetition"  # the teacher loops
    HALLUCINATION_PHRASE = "hallucination_phrase"  # nothing but a known phrase
    EMPTY = "empty"  # no token survives normalisation


class QuarantineReason(StrEnum):
    """Why a recording was set aside."""

    UNREADABLE = "unreadable"  # missing, or the storage refuses
    NOT_AUDIO = "not_audio"  # no decoder, no audio stream, zero bytes
    TRUNCATED = "truncated"  # less audio than the container promises
    DAMAGED = "damaged"  # the decoder fails part of the way, or samples are not finite
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    SILENT = "silent"
    REFUSED = "refused"  # outside the allow-list when the worker opened it
    CRASHES_WORKER = "crashes_worker"  # took a worker down more than once while alone in it
    FAILED = "failed"  # kept raising an unexpected error


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says about one chunk."""

    status: Status
    reason: Reason


# ---- work ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a batch. `key` identifies its content: bytes for uploads; URI, size and change mark otherwise."""

    name: str  # the path or file name as the user gave it; only ever shown, never opened
    uri: str  # what the worker opens: file://, s3://, https:// or lake:// (an upload)
    key: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """An immutable request: which sources, labeled and doubted how."""

    id: str
    name: str
    sources: tuple[Source, ...]
    teacher: str  # model reference
    validator: str  # model reference, or "perturbed"
    options: LongformOptions
    created_at: str  # ISO 8601, UTC
    trusted: bool = False  # made by a command on this machine: the API's allow-list does not judge its files


class BatchState(StrEnum):
    """Where a batch is. Derived from the lake (results, cancelled) and Redis (jobs); stored nowhere."""

    QUEUED = "queued"  # jobs wait, none runs
    RUNNING = "running"
    DONE = "done"  # every recording is labeled or quarantined
    CANCELLED = "cancelled"
    STALLED = "stalled"  # recordings are missing and no job is there to do them: `k2d resume`


class Outcome(StrEnum):
    """How one recording of a batch ended."""

    LABELED = "labeled"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """One line of a batch's ledger: where a source's facts are, or why there are none."""

    position: int  # in the batch's sources
    name: str
    outcome: Outcome
    duration_s: float  # 0.0 where nothing could be decoded
    recording_id: str | None = None
    label_key: str | None = None
    facts_key: str | None = None
    reason: str | None = None  # QuarantineReason
    detail: str | None = None  # one sentence for a person
    wall_s: float = 0.0  # its share of its worker's time; shares of recordings in flight together add up
