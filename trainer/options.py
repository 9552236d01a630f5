"""The recipe: every option that decides what a training run computes. Validated; unknown keys are refused."""

import hashlib
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from k2d.errors import BadRequest
from k2d.foreign import Unparsable, parse_yaml
from k2d.schema import MIXED
from k2d.textfiles import read_text, why_unreadable
from k2d.wording import did_you_mean

HASH_DIGITS: Final = 16
CONTEXT: Final = 448  # as k2d.whisper.prompts has it, whose import needs tokenizers


class Recipe(BaseModel):
    """How a student is distilled. Defaults are the paper's (docs/method.md, section 4) but for steps and batch.

    Recipe(teacher="openai/whisper-small", steps=5000)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # ---- student
    teacher: str = Field(
        default="packaged:whisper-base", description="Model that is distilled: hub id, folder or packaged:…"
    )
    student: str | None = Field(default=None, description="Start from this student; none: cut one from the teacher.")
    decoder_layers: int = Field(
        default=2, ge=1, description="Copied from the teacher's, as far apart as possible: of two, first and last."
    )
    encoder_layers: int | None = Field(
        default=None, ge=1, description="Fewer than the teacher's; such an encoder is trained. None: all."
    )
    freeze_encoder: bool = Field(default=True, description="Keep the teacher's encoder and run it once for both.")
    freeze_positions: bool = Field(default=True, description="Keep the decoder's positional embeddings.")

    # ---- labels
    language: str = Field(default=MIXED, description="Prompt of teacher and student: zh-en (the mixed one) or a code.")
    timestamp_probability: float = Field(default=0.5, ge=0, le=1, description="Share of rows that keep timestamps.")
    prompt_probability: float = Field(default=0.2, ge=0, le=1, description="Share of rows that get the previous text.")
    max_tokens: int = Field(
        default=CONTEXT, ge=16, le=CONTEXT, description="Longest row in tokens; longer ones are skipped."
    )
    distance_weight: float = Field(
        default=0.0, ge=0, le=1, description="A row at distance d weighs 1 - this × min(d, 1)."
    )
    spec_augment: bool = Field(default=False, description="Mask stretches of time and frequency (SpecAugment).")
    noise_snr_db: float | None = Field(
        default=None, description="Add white noise at this ratio or a better one; none: no noise."
    )

    # ---- loss
    ce_weight: float = Field(default=0.8, ge=0, description="Weight of the cross-entropy on the pseudo-label.")
    kl_weight: float = Field(default=1.0, ge=0, description="Weight of KL(teacher ‖ student).")
    temperature: float = Field(
        default=2.0, gt=0, description="Temperature of both distributions in KL, which is scaled by its square."
    )

    # ---- optimiser
    steps: int = Field(default=1000, ge=1, description="Optimiser steps in all.")
    batch: int = Field(default=32, ge=1, description="Rows a step, over all processes.")
    micro_batch: int = Field(
        default=8, ge=1, description="Rows at once in one process; their gradients are accumulated."
    )
    learning_rate: float = Field(default=1e-4, gt=0, description="Highest; reached after warm-up.")
    warmup_steps: int = Field(default=50, ge=0, description="Steps in which the rate rises from 0.")
    schedule: Literal["constant", "linear"] = Field(default="constant", description="After warm-up.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")

    # ---- data order
    seed: int = Field(default=0, description="Seed of the data's order and of all random choices.")
    lanes: int = Field(default=8, ge=1, description="Streams a batch is drawn from; processes share them.")
    shuffle_groups: int = Field(
        default=4, ge=1, description="Row groups a lane shuffles together; they are held in memory."
    )
    workers: int = Field(default=2, ge=1, description="Threads or processes that prepare rows for one process.")
    worker_kind: Literal["auto", "threads", "processes"] = Field(
        default="auto", description="auto: processes beside a GPU, which threads would keep waiting; else threads."
    )

    # ---- how it runs; changes what is learned by rounding only
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 where CUDA supports it."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again in the backward pass: less memory, slower."
    )
    compile: bool = Field(default=False, description="torch.compile the frozen parts.")
    sharding: Literal["none", "fsdp"] = Field(
        default="none", description="fsdp: spread trained weights over the processes."
    )
    vocabulary_chunk_mib: int = Field(default=128, ge=1, description="Memory for one tensor of logits, at most.")
    keep_encoded_gib: float = Field(
        default=0.0,
        ge=0,
        description="Memory for the frozen encoder's output, so that later epochs need no encoder.",
    )
    threads: int = Field(default=0, ge=0, description="CPU threads of torch; 0: its own default, or one beside a GPU.")

    # ---- what is kept
    validate_on: str | None = Field(default=None, description="Manifest (JSONL) with references to validate on.")
    holdout: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="Share of recordings held out of training to validate on; 0: none, as with `validate_on`.",
    )
    validation_rows: int = Field(default=64, ge=1, description="Rows to validate on, at most.")
    validate_every: int = Field(default=500, ge=1, description="In steps.")
    checkpoint_every: int = Field(default=500, ge=1, description="In steps.")
    keep_checkpoints: int = Field(
        default=2, ge=1, description="How many of the newest are kept; the best student is kept as well."
    )
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        default=("tensorboard",),
        description="Where curves are sent beside the run's own files; wandb where it is installed.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.batch % self.micro_batch:
            raise ValueError(f"batch {self.batch} is not a multiple of micro_batch {self.micro_batch}")
        if self.keep_encoded_gib and (self.spec_augment or self.noise_snr_db is not None):
            raise ValueError("keep_encoded_gib needs audio that never changes: no spec_augment, no noise_snr_db")
        if self.encoder_layers is not None and self.freeze_encoder:
            raise ValueError("an encoder with fewer layers must be trained: set freeze_encoder=false")
        if self.keep_encoded_gib and not self.freeze_encoder:
            raise ValueError("keep_encoded_gib needs a frozen encoder")
        return self

    @property
    def key(self) -> str:
        """A hash of all values, hex: equal recipes have equal keys."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:HASH_DIGITS]


PAPER: Final = Recipe(
    teacher="openai/whisper-large-v2",
    steps=120_000,
    batch=256,
    micro_batch=32,
    validate_every=5_000,
    checkpoint_every=1_000,
)
PRESETS: Final = {"default": Recipe(), "paper": PAPER}


def load_recipe(name: str, changes: dict[str, Any] | None = None) -> Recipe:
    """A preset or a YAML file, with single values changed.

        load_recipe("paper", {"steps": 5000})

    Raises:
        BadRequest: no such file, not valid YAML, an unknown key or an impossible value.
    """
    if name in PRESETS:
        values: Any = PRESETS[name].model_dump()
    else:
        values = _read(Path(name))
    try:
        return Recipe.model_validate({**values, **(changes or {})})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        unknown = (str(e["loc"][-1]) for e in error.errors() if e["type"] == "extra_forbidden")
        meant = "".join(did_you_mean(key, Recipe.model_fields) for key in unknown)
        hint = f"{meant}docs/recipe.md lists the keys"
        raise BadRequest(f"the recipe {name!r} is not valid: {problems}", hint=hint) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = parse_yaml(read_text(path))
    except OSError as error:
        known = ", ".join(PRESETS)
        raise BadRequest(
            f"recipe {str(path)!r} cannot be read: {why_unreadable(error)}",
            hint=f"give a preset ({known}) or a YAML file",
        ) from error
    except (Unparsable, UnicodeError) as error:
        raise BadRequest(f"{path} is not valid YAML: {error}", hint="write `key: value`, one a line") from error
    if not isinstance(values, dict):
        raise BadRequest(f"{path} has no keys and values", hint="write `key: value`, one a line")
    return values
