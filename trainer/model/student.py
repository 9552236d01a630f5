"""Makes a student from a teacher's layers, and saves one so that every engine loads it."""

import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from transformers import WhisperConfig, WhisperForConditionalGeneration

from k2d.errors import BadRequest, ModelError
from k2d.whisper.conversion import hide_progress_bars
from k2d.whisper.prompts import MIXED_CODES
from k2d.whisper.resolve import COMPANIONS
from k2d.whisper.vocabulary import Vocabulary
from trainer.model.alignment_heads import alignment_heads

# beside the weights: what tokenizers, feature extractors and `generate` of other tools read
FILES: Final = (
    *COMPANIONS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "vocab.json",
)
WRITTEN: Final = ("config.json", "generation_config.json")  # by `save_pretrained`, so not copied


@dataclass(frozen=True, slots=True)
class LayerMap:
    """Which of the teacher's layers the student's were copied from."""

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Parameters of one model, tied ones counted once."""

    encoder: int
    decoder: int

    @property
    def total(self) -> int:
        return self.encoder + self.decoder


def load_teacher(folder: Path) -> Any:
    """Load a Whisper in float32 on the CPU, for training; returns a `WhisperForConditionalGeneration`.

    Raises:
        ModelError: damaged weights.
    """
    hide_progress_bars()
    try:
        model: Any = WhisperForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be loaded: {error}", hint="fetch the model again") from error
    return model.eval()


def spaced_layers(count: int, *, of: int) -> tuple[int, ...]:
    """`count` of `of` layers, as far apart as possible: first and last are among them; one alone is the last.

        spaced_layers(4, of=32)  # (0, 10, 20, 31)

    Source: distil-whisper, create_student_model.py; docs/method.md, section 1.

    Raises:
        BadRequest: more than there are.
    """
    if not 1 <= count <= of:
        raise BadRequest(f"the teacher has {of} layers, not {count}", hint=f"ask for 1 to {of}")
    return tuple(int(place * (of - 1) / (count - 1)) if count > 1 else of - 1 for place in range(count))


def layer_map(config: Any, *, decoder_layers: int, encoder_layers: int | None) -> LayerMap:
    """The layers that a student of this size takes from a teacher of this configuration."""
    encoder = config.encoder_layers if encoder_layers is None else encoder_layers
    return LayerMap(
        encoder=spaced_layers(encoder, of=config.encoder_layers),
        decoder=spaced_layers(decoder_layers, of=config.decoder_layers),
    )


def cut_student(teacher: Any, *, decoder_layers: int = 2, encoder_layers: int | None = None) -> Any:
    """A student with the teacher's weights in fewer layers, in float32 on the CPU.

        student = cut_student(Path("models/whisper-large-v2"), decoder_layers=2)

    Args:
        teacher: a Whisper of any size, or the folder of one.
        decoder_layers, encoder_layers: how many are kept; None: all of the encoder's.

    Raises:
        BadRequest: more layers than the teacher has.
        ModelError: the folder cannot be loaded.
    """
    if isinstance(teacher, str | Path):
        teacher = load_teacher(Path(teacher))
    layers = layer_map(teacher.config, decoder_layers=decoder_layers, encoder_layers=encoder_layers)
    config = deepcopy(teacher.config)
    config.decoder_layers, config.encoder_layers = len(layers.decoder), len(layers.encoder)
    config.num_hidden_layers = config.encoder_layers
    with torch.device("meta"):  # no time is spent on random weights
        student: Any = WhisperForConditionalGeneration(WhisperConfig.from_dict(config.to_dict()))
    weights = teacher.state_dict()
    state = {name: weights[_teacher_name(name, layers)].detach().clone() for name in student.state_dict()}
    student.load_state_dict(state, assign=True)
    student.tie_weights()
    settings = deepcopy(teacher.generation_config)
    known = getattr(settings, "alignment_heads", None)
    settings.alignment_heads = alignment_heads(
        known, layers=layers.decoder, heads=teacher.config.decoder_attention_heads
    )
    settings.forced_decoder_ids = None  # a forced language would overrule the one that is asked for
    student.generation_config = settings
    return student.eval()


def check_vocabulary(teacher: Any, student: Any) -> None:
    """Refuse a pair of models whose probabilities are not over the same tokens.

    Raises:
        BadRequest
    """
    ours, theirs = student.config.vocab_size, teacher.config.vocab_size
    if ours != theirs:
        raise BadRequest(
            f"the teacher has {theirs} tokens, the student {ours}: their probabilities cannot be compared",
            hint="take a student that was cut from a teacher with the same vocabulary (large-v3's differs from v2's)",
        )


def share_encoder(teacher: Any, student: Any) -> None:
    """Give the student the teacher's own frozen encoder in place of its equal copy.

    Raises:
        BadRequest: the student's encoder is a different one.
    """
    ours, theirs = student.model.encoder.state_dict(), teacher.model.encoder.state_dict()
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise BadRequest(
            "the student's encoder is not the teacher's, so one pass cannot serve both",
            hint="set freeze_encoder=false",
        )
    student.model.encoder = teacher.model.encoder


def count_parameters(model: Any) -> ParameterCounts:
    """How many parameters a Whisper has."""
    parts = (model.model.encoder, model.model.decoder)
    return ParameterCounts(*(sum(p.numel() for p in part.parameters()) for part in parts))


def mixed_embedding(weight: torch.Tensor, vocabulary: Vocabulary) -> torch.Tensor:
    """The mixed prompt's embedding (width,): the mean of those of zh and en. Source: docs/method.md, section 4.

    Args:
        weight: the embeddings of all tokens, (vocabulary, width).
    """
    # one row after the other: a list of indices would be copied to a GPU first, and wait for all work queued there
    rows = [weight[vocabulary.languages[code]] for code in MIXED_CODES]
    return torch.stack(rows).mean(dim=0)


def save_student(student: Any, folder: Path, *, tokenizer_from: Path) -> None:
    """Write a student as a transformers folder that both of k2d's engines, and other tools, load.

    The embeddings of zh, en and the mixed prompt all become the mixed prompt's: the student was trained with that one
    alone, so every tool gives it the prompt it knows, whichever of the languages it asks for (docs/adr/0007).

    Raises:
        OSError: the folder cannot be written.
    """
    vocabulary = Vocabulary(tokenizer_from / "tokenizer.json")
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (tokenizer_from / name).is_file() and name not in WRITTEN:
            shutil.copyfile(tokenizer_from / name, folder / name)
    weight = student.model.decoder.embed_tokens.weight  # (vocabulary, width)
    rows = [vocabulary.sot_lm, *(vocabulary.languages[code] for code in MIXED_CODES)]
    with torch.no_grad():
        trained = weight[rows].clone()
        weight[rows] = mixed_embedding(weight, vocabulary)
        try:
            student.save_pretrained(folder, safe_serialization=True)
        finally:
            weight[rows] = trained  # training may go on with this student


def compare_sizes(teacher: Any, student: Any, layers: LayerMap | None) -> list[dict[str, Any]]:
    """Layers and parameters side by side, one row for each part, for `k2d train` and the run's report."""
    ours, theirs = count_parameters(student), count_parameters(teacher)
    return [
        {
            "part": part,
            "teacher_layers": getattr(teacher.config, f"{part}_layers"),
            "student_layers": getattr(student.config, f"{part}_layers"),
            "copied_from": list(getattr(layers, part)) if layers else None,
            "teacher_parameters": getattr(theirs, part),
            "student_parameters": getattr(ours, part),
        }
        for part in ("encoder", "decoder")
    ]


def _teacher_name(name: str, layers: LayerMap) -> str:
    """The teacher's name of a student's tensor: the same but for the number of the layer."""
    parts = name.split(".")
    if "layers" in parts:
        at = parts.index("layers") + 1
        kept = layers.encoder if "encoder" in parts else layers.decoder
        parts[at] = str(kept[int(parts[at])])
    return ".".join(parts)
