"""The data types that every package shares: frozen dataclasses and enums.

Names that end in `_s` are seconds, as floats rounded to milliseconds, counted from the start of the recording unless a
docstring says otherwise. Samples are int16, 16 kHz, mono.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ: Final = 16_000
WINDOW_S: Final = 30.0  # length of the encoder's input
WINDOW_SAMPLES: Final = int(WINDOW_S * SAMPLE_RATE_HZ)
MAX_CHUNK_S: Final = WINDOW_S  # a chunk fits one window, so that validators and the student get all of it

Samples = npt.NDArray[np.int16]  # shape (n,), 16 kHz mono

MIXED: Final = "zh-en"  # the mixed prompt: mean of the zh and en embeddings (docs/method.md)
AUTO: Final = "auto"  # detected for every window

# codes of Whisper's multilingual vocabulary in its order (openai/whisper, tokenizer.py); `yue` came with large-v3
_CODES: Final = """
    en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml
    cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am
    yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue
"""
LANGUAGES: Final[frozenset[str]] = frozenset(_CODES.split())


ADDED: Final = "added"  # metadata of a field: the version that added it to a dataclass that is part of keys (k2d.keys)


# ---- models and decoding ------------------------------------------------------------------------------------------


class EngineName(StrEnum):
    """The engines that run a model (`k2d.whisper.load`)."""

    CTRANSLATE2 = "ctranslate2"
    TRANSFORMERS = "transformers"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which weights, in which engine, at which precision: everything about a model that can change a label."""

    reference: str  # as the operator wrote it
    digest: str  # sha256 over the weight files, hex
    engine: str  # EngineName
    compute_type: str  # "int8", "float16", "bfloat16", "float32" …
    device: str  # "cpu" | "cuda"

    @property
    def fingerprint(self) -> str:
        """Digest, engine and precision, for keys and records. The device is left out: it may change between runs."""
        return f"{self.digest[:16]}:{self.engine}:{self.compute_type}"


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How one window of at most 30 s is decoded. Part of every label's key.

    Thresholds are Whisper's: a result is decoded again at the next temperature when its compression ratio exceeds
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
    initial_prompt: str | None = None  # terms and style, prepended to each window's previous text
    # encode little more than the window's own length instead of 30 s (k2d.whisper.features.context_frames)
    short_context: bool = field(default=False, metadata={ADDED: "0.3"})


@dataclass(frozen=True, slots=True)
class LongformOptions:
    """How a recording of any length is transcribed (Whisper's sequential algorithm). Part of every label's key."""

    decode: DecodeOptions = field(default_factory=DecodeOptions)
    condition_on_previous_text: bool = False
    prompt_reset_on_temperature: float = 0.5  # above it, the next window gets no previous text
    vad: bool = False  # skip audio without voice activity before the teacher transcribes it
    # validators and second decodes encode little more than a chunk's own length, not 30 s
    short_context: bool = field(default=False, metadata={ADDED: "0.3"})
    # choose among the label of a chunk and second decodes of it (k2d.labeling.rescore)
    rescore: bool = field(default=False, metadata={ADDED: "0.3"})


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One engine input: samples of shape (n,), n ≤ 480,000, and the previous text's tokens (may be empty)."""

    samples: Samples
    prompt: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a window between two timestamps. Times are relative to the window's start."""

    start_s: float
    end_s: float
    text: str
    tokens: tuple[int, ...]  # text tokens only


@dataclass(frozen=True, slots=True)
class WindowResult:
    """An engine's result for one window."""

    text: str  # without timestamps and special tokens
    tokens: tuple[int, ...]  # as generated: with timestamps, without prompt and end-of-text
    pieces: tuple[Piece, ...]
    resume_s: float | None  # start of the next window, relative to this one's; None: at this window's end
    avg_logprob: float  # natural log, mean over generated tokens and end-of-text
    no_speech_prob: float
    compression_ratio: float  # zlib, over UTF-8 bytes
    temperature: float  # at which the accepted result was decoded
    language: str  # as prompted; detected when the option is "auto"
    language_probs: tuple[tuple[str, float], ...] = ()  # highest first; filled when the option is "auto"


@dataclass(frozen=True, slots=True)
class TextScore:
    """Forced log-probabilities of a given text under a model. Nothing is decoded, so the result cannot loop."""

    tokens: tuple[int, ...]  # of the text, without timestamps and special tokens
    logprobs: tuple[float, ...]  # natural log of each token's probability among text tokens, given audio and context
    avg_logprob: float  # their mean; 0.0 for an empty text


TEACHER: Final = "teacher"  # origin of a text that the teacher wrote when it transcribed the recording


# ---- speech -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording's audio, as measured by decoding it once from end to end."""

    id: str  # "rec_" + 24 hex: hash over the 16 kHz mono int16 samples
    duration_s: float
    samples: int
    peak: float  # largest |sample|, 0…1
    source_format: str  # e.g. "flac, 48000 Hz, 2 channels"
    channels: tuple[int, ...] = ()  # the channels, from 1, whose mean the samples are; empty: all
    paused_s: float = 0.0  # silence that was laid open in its samples: pauses in the time stamps, a late start
    quarantined_s: float = 0.0  # what is damaged or missing behind the samples, if it was kept in part
    quarantine_reason: str | None = None  # QuarantineReason of that part
    notes: tuple[str, ...] = ()  # what was decided about tracks, channels and clock; one sentence each


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of a recording between two of the teacher's timestamps, with the teacher's text and confidence."""

    start_s: float
    end_s: float
    text: str
    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    language: str
    origin: str = TEACHER  # or the second decode whose text was chosen ("second decode, beam 5"); it has no tokens
    teacher_text: str | None = None  # the teacher's own text, where another was chosen


@dataclass(frozen=True, slots=True)
class Chunk:
    """Adjacent segments of one recording, at most 30 s from the first's start to the last's end.

    A chunk's audio is cut to exactly that span, so that validators get nothing the label does not cover.
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


# ---- validation ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """Edit counts of one alignment, with the validator as reference and the teacher as hypothesis (as in the paper)."""

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
    """How far two transcripts of one chunk are apart: edit counts, and what else the paper's rules need."""

    mixed: Counts  # over mixed tokens: MER
    phonemes: Counts  # over phonemes: PER
    teacher_repetition: int  # how often the most frequent character 6-gram occurs in the teacher's text
    validator_repetition: int  # the same for the validator; over several perturbations, the least
    phrase: str | None  # the known hallucination phrase the teacher's text consists of, if it does
    zh_tokens: int  # Han characters in the teacher's normalised text
    en_tokens: int  # Latin/digit tokens in it


ENGLISH_ONLY: Final = "english:"  # begins the names of English-only validators


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One validator's transcript of a chunk, from its audio unchanged or perturbed, and its log-probs of the label."""

    # "model:<reference>", "perturbed:<reference>", "english:<reference>", "openai:<url>#<model>", "sherpa:<folder>",
    # "probe:<digest>", "second-decode:<reference>"
    validator: str
    perturbation: str  # "as is", or how the audio was changed; for a second decode, how it was decoded
    text: str  # for a probe: phonemes (k2d.text.sounds), separated by spaces
    avg_logprob: float  # of this text, natural log, mean over tokens; 0 where the validator tells none
    # For each segment of the label: mean forced log-probability of its tokens (for a probe: of its phonemes) under the
    # validator. Empty where the validator computes none.
    forced_logprobs: tuple[float, ...] = ()
    is_phonemes: bool = False
    # For each segment of the label: mean over its tokens of 1 - forced probability. Empty where there are none.
    expected_token_errors: tuple[float, ...] = ()

    @property
    def is_english_only(self) -> bool:
        """Whether the validator judges only the label's English words."""
        return self.validator.startswith(ENGLISH_ONLY)


# Increase it when Evidence gets other members, or they are computed differently: stored facts then count as missing and
# are computed anew from the stored labels and hypotheses.
FACTS_VERSION: Final = 4


@dataclass(frozen=True, slots=True)
class Evidence:
    """The features from which a policy decides about the label of a segment, or of a chunk as a whole.

    Edits come from aligning the phonemes of label and hypothesis over the chunk; they are attributed to the teacher's
    tokens. A token counts as wrong by the share of its phonemes that are wrong, a Latin token as a whole. What sounds
    the same (homophones, 2 = 二 = two, variants, loan words) is no edit. Rates are edits over the longer side, 0…1.

    For a chunk, `is_phrase`, `is_echo` and `is_rescored` are true if they are for any of its segments, and `loops` and
    `flip` are the worst segment's: a chunk is kept whole only if nothing in it breaks a rule.
    """

    duration_s: float
    zh_tokens: int  # Han characters in the teacher's text
    en_tokens: int  # Latin tokens in it
    other_tokens: int  # neither: kana, Hangul …
    phonemes: int  # in the teacher's text
    disagreement_least: float  # of the hypothesis that is nearest to the label
    disagreement_middle: float  # median over all hypotheses
    disagreement_most: float  # of the hypothesis that is farthest from it
    # phoneme edits in Mandarin over the longer side's phonemes; median over hypotheses; 0 without any
    zh_error: float
    en_error: float  # wrong English words over the longer side's words; median over hypotheses; 0 without any
    substituted: float  # substituted tokens over the longer side's tokens; mean over hypotheses
    deleted: float  # the same for tokens that only the hypothesis has
    inserted: float  # the same for tokens that only the teacher has
    homophones: float  # share of the teacher's tokens that are written differently but sound the same; mean
    flip: float  # difference in the share of Mandarin between label and hypothesis where they disagree, 0…1; mean
    # mean forced log-probability of the label's tokens under the validators; the teacher's own where none computes it
    forced_logprob: float
    # mean over the label's tokens of 1 - forced probability: the share that validators expect to be wrong
    expected_token_error: float
    probe_nll: float  # mean negative log-probability of the label's phonemes under a probe; 0 without a probe
    avg_logprob: float  # the teacher's mean log-probability of the label's tokens
    no_speech_prob: float  # the largest of the segments'
    compression_ratio: float  # the largest of the segments'
    temperature: float  # the largest of the segments'
    teacher_repetition: int  # how often the label's most frequent character 6-gram occurs
    hypothesis_repetition: int  # the same for the hypotheses; the least over all of them
    loops: int  # how often the label repeats itself, where that is more than speech does; else 0 (k2d.text.suspicions)
    is_phrase: bool  # consists of known hallucination phrases only
    is_echo: bool  # repeats the teacher's prompt, and no hypothesis confirms half of it
    is_rescored: bool = False  # its text is a second decode's, not the teacher's first


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """One row of a facts shard: all that is known about a chunk, without its audio."""

    id: str  # k2d.keys.chunk_id
    recording_id: str
    index: int
    start_s: float
    end_s: float
    teacher_text: str
    segments: tuple[Segment, ...]
    validators: str  # their names joined by "+": "model:<reference>", "perturbed:<reference>+second-decode:<reference>"
    hypotheses: tuple[Hypothesis, ...]  # the first validator's, one for each perturbation, then those of the others
    distances: Distances  # to the first validator, as in the paper; counts are summed over its perturbations
    evidence: Evidence  # from all hypotheses, over the chunk
    segment_evidence: tuple[Evidence, ...]  # the same for each segment

    @property
    def duration_s(self) -> float:
        return round(self.end_s - self.start_s, 3)

    @property
    def first(self) -> tuple[Hypothesis, ...]:
        """The first validator's hypotheses; it is the paper's validator."""
        return tuple(value for value in self.hypotheses if value.validator == self.hypotheses[0].validator)

    @property
    def perturbations(self) -> tuple[str, ...]:
        """The first validator's perturbations: ("as is",) for a second model."""
        return tuple(value.perturbation for value in self.first)

    @property
    def validator_texts(self) -> tuple[str, ...]:
        """The first validator's texts, one for each perturbation."""
        return tuple(value.text for value in self.first)

    @property
    def validator_avg_logprob(self) -> float:
        """Mean of `avg_logprob` over the first validator's hypotheses."""
        return sum(value.avg_logprob for value in self.first) / len(self.first)


class Metric(StrEnum):
    """The number that a policy compares with α."""

    MER = "mer"
    PER = "per"
    COMPOSITE = "composite"
    MER_BOUNDED = "mer_bounded"
    PER_BOUNDED = "per_bounded"
    COMPOSITE_BOUNDED = "composite_bounded"
    EVIDENCE = "evidence"  # the risk: all evidence, weighted (k2d.filtering.policy.risk)


class Quorum(StrEnum):
    """Which hypothesis decides where a label has several."""

    ANY = "any"  # the nearest: one that agrees is enough
    MOST = "most"  # the median
    ALL = "all"  # the farthest: every one must agree


class Status(StrEnum):
    """The outcome of a second of input that has a label, or could get none."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"


class Reason(StrEnum):
    """Why a chunk or a segment was accepted or rejected. Reports use this order; add new reasons at the end."""

    AGREEMENT = "agreement"  # distance ≤ α
    HOMOPHONE = "homophone"  # accepted: nothing differs but the writing of what sounds the same
    VALIDATOR_REPETITION = "validator_repetition"  # only the validator loops: composite keeps it, evidence does not
    EMPTY = "empty"  # no token survives normalisation
    TEACHER_REPETITION = "teacher_repetition"  # the teacher loops
    HALLUCINATION_PHRASE = "hallucination_phrase"  # known hallucination phrases only
    PROMPT_ECHO = "prompt_echo"  # the label repeats its prompt
    LANGUAGE_FLIP = "language_flip"  # the teacher translated instead of transcribing
    SCRIPT_MIX = "script_mix"  # scripts of neither language
    SPEECH_RATE = "speech_rate"  # more or less speech than the span can hold
    UNCONFIRMED = "unconfirmed"  # the validators confirm almost nothing of the label
    DISAGREEMENT = "disagreement"  # distance > α, by a metric that does not tell the kinds of edit apart
    SUBSTITUTION = "substitution"  # risk > α, mostly for tokens that validators transcribe differently
    DELETION = "deletion"  # risk > α, mostly for tokens only validators have: the label lacks speech
    INSERTION = "insertion"  # risk > α, mostly for tokens only the teacher has: the label invents speech
    LOW_CONFIDENCE = "low_confidence"  # risk > α, most of it because the models find the label improbable
    UNRESOLVED = "unresolved"  # risk > α and the hypotheses contradict one another
    RESCORED = "rescored"  # the text is a second decode's, and the policy takes the teacher's own only


class QuarantineReason(StrEnum):
    """Why a recording was quarantined."""

    UNREADABLE = "unreadable"  # missing, or the storage refuses
    NOT_AUDIO = "not_audio"  # no decoder, no audio stream, zero bytes
    TRUNCATED = "truncated"  # less audio than the container declares
    DAMAGED = "damaged"  # the decoder fails part of the way, or samples are not finite
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    SILENT = "silent"
    NO_CHANNEL = "no_channel"  # fewer channels than the one asked for
    CHANGED = "changed"  # other samples when it was labeled than when it was examined, twice
    REFUSED = "refused"  # outside the allow-list when the worker opened it
    OVER_QUOTA = "over_quota"  # the batch has more hours than it may have
    CRASHES_WORKER = "crashes_worker"  # the decoder crashed or reached a limit, or the worker died of it repeatedly
    FAILED = "failed"  # raised an unexpected error at every attempt


@dataclass(frozen=True, slots=True)
class Verdict:
    """A policy's decision about one chunk."""

    status: Status
    reason: Reason


# ---- scripts ------------------------------------------------------------------------------------------------------


class Script(StrEnum):
    """The script of a dataset's labels (`k2d.text.script`)."""

    TRADITIONAL = "traditional"  # Taiwan's characters
    SIMPLIFIED = "simplified"
    AS_HEARD = "as-heard"  # as the teacher wrote them


class LabelScript(StrEnum):
    """The script a label is in, by the characters that only one script has."""

    TRADITIONAL = "traditional"
    SIMPLIFIED = "simplified"
    MIXED = "mixed"
    NEITHER = "neither"


# ---- work ---------------------------------------------------------------------------------------------------------


MIX: Final = "mix"  # one recording a file: the mean of its channels (k2d.audio.examine)
EACH: Final = "each"  # one recording a channel


@dataclass(frozen=True, slots=True)
class AudioOptions:
    """Which samples of the files of a batch are labeled. Part of the keys of examinations, where not the default.

    Keys of labels need none of it: they hash the samples that were taken.
    """

    channels: str = MIX  # MIX, EACH, or the number of a channel, from 1
    keep_partial: bool = False  # label what is before the damage in a damaged or truncated file

    @property
    def channel(self) -> int | None:
        """The one channel that is labeled; None where another choice was made."""
        return int(self.channels) if self.channels.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a batch, or one channel of it.

    `key` identifies its content: the bytes of an upload, and of a file that was given to a command on this machine;
    else URI, size and change mark (of a file: its times and inode); for a channel, with its number.
    """

    name: str  # the path or file name as the user gave it, "#1" behind it for channel 1; for display only
    uri: str  # what the worker opens: file://, s3://, https:// or lake:// (an upload)
    key: str
    size_bytes: int | None = None
    channel: int | None = None  # from 1; None: as the batch's options say
    sha256: str | None = None  # of the bytes; None: they were not read


@dataclass(frozen=True, slots=True)
class Batch:
    """A labeling request, immutable: which sources, which models, which options."""

    id: str
    name: str
    sources: tuple[Source, ...]
    teacher: str  # model reference
    validator: str  # validators joined by "+": model references, "perturbed", "probe:<digest>", "second-decode"
    options: LongformOptions
    created_at: str  # ISO 8601, UTC
    trusted: bool = False  # made by a command on this machine: K2D_ALLOWED_SOURCES does not apply
    audio: AudioOptions = field(default_factory=AudioOptions)


class BatchState(StrEnum):
    """The state of a batch. Derived from the lake (results, cancelled) and Redis (jobs); not stored."""

    OPEN = "open"  # files may be added; it is labeled once it is closed
    PREPARING = "preparing"  # what its URIs name is being looked at
    QUEUED = "queued"  # jobs are waiting, none runs
    RUNNING = "running"
    DONE = "done"  # every recording is labeled or quarantined
    CANCELLED = "cancelled"
    STALLED = "stalled"  # recordings are missing, and neither a job nor a process is there for them: `k2d resume`
    DAMAGED = "damaged"  # the batch's record cannot be read: label the same files again


class Outcome(StrEnum):
    """How one recording of a batch ended."""

    LABELED = "labeled"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, order=True)
class Versions:
    """The versions of what labeled and validated a recording. Empty or 0: not recorded, as before version 0.3."""

    label: int = 0  # LABEL_VERSION (k2d.labeling.recording)
    facts: int = 0  # FACTS_VERSION
    labeled_by: str = ""  # version of k2d
    validated_by: str = ""  # version of k2d that computed the facts

    def __str__(self) -> str:
        return (
            f"labeled by k2d {self.labeled_by or 'before 0.3'} (labels {self.label or '?'}), "
            f"validated by {self.validated_by or 'one before 0.3'} (facts {self.facts or '?'})"
        )


@dataclass(frozen=True, slots=True)
class NoLabel:
    """Milliseconds of a labeled recording that no chunk covers, by how they sound (k2d.labeling.no_label)."""

    pauses_ms: int = 0  # quiet for less than 2 s
    quiet_ms: int = 0  # quiet for longer
    sound_ms: int = 0  # music, noise, or speech that the teacher left out

    def __add__(self, other: "NoLabel") -> "NoLabel":
        return NoLabel(self.pauses_ms + other.pauses_ms, self.quiet_ms + other.quiet_ms, self.sound_ms + other.sound_ms)


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """The result of one recording of a batch: where its facts are, or why there are none."""

    position: int  # index in the batch's sources
    name: str
    outcome: Outcome
    duration_s: float  # 0.0 where nothing could be decoded; what is quarantined of it included
    recording_id: str | None = None
    label_key: str | None = None
    facts_key: str | None = None
    reason: str | None = None  # QuarantineReason; of a labeled recording, that of the part that is quarantined
    detail: str | None = None  # one sentence for the reader
    wall_s: float = 0.0  # its share of the worker's wall time; the shares of concurrent recordings add up to it
    quarantined_s: float = 0.0  # of a labeled recording: what is damaged or missing behind its labels
    notes: tuple[str, ...] = ()  # Recording.notes
    versions: Versions | None = None  # of a labeled recording; None: written before version 0.3
    no_label: NoLabel | None = None  # of a labeled recording; None: not measured, as before version 0.3
    # seconds of its audio on which models worked in `wall_s`, labeling and validation by half each
    # (k2d.corpus.time_left); 0.0 where all was there already; None: not recorded
    worked_s: float | None = None
