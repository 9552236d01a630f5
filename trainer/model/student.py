"""Cut a student out of a teacher: layers copied, maximally spaced; and save one so that every engine loads it."""

import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from k2d.errors import BadRequest, ModelError
from k2d.whisper.prompts import MIXED_CODES
from k2d.whisper.resolve import COMPANIONS
from k2d.whisper.vocabulary import Vocabulary

# beside the weights: what tokenizers, feature extractors and `generate` of other tools read
FILES = (
    *COMPANIONS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "vocab.json",
)
OWN = ("config.json", "generation_config.json")  # written anew


@dataclass(frozen=True, slots=True)
class LayerMap:
    """Which of the teacher's layers the student's were copied from."""

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameters of one model, tied ones counted once."""

    encoder: int
    decoder: int

    @property
    def total(self) -> int:
        return self.encoder + self.decoder


def load_teacher(folder: Path) -> Any:
    """A Whisper in float32 on the CPU, for training with; a `WhisperForConditionalGeneration`.

    Raises:
        ModelError: damaged weights.
    """
    quiet: Any = disable_progress_bar
    quiet()  # a bar for each load would drown the run's own
    try:
        model: Any = WhisperForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be loaded: {error}", hint="fetch the model again") from error
    return model.eval()


def spaced(count: int, *, of: int) -> tuple[int, ...]:
    """`count` of `of` layers, as far apart as they go: first and last are among them; one alone is the last.

    Source: distil-whisper, create_student_model.py; method.md, section 1.

    Raises:
        BadRequest: more than there are.
    """
    if not 1 <= count <= of:
        raise BadRequest(f"the teacher has {of} layers, not {count}", hint=f"ask for 1 to {of}")
    return tuple(int(place * (of - 1) / (count - 1)) if count > 1 else of - 1 for place in range(count))


def layer_map(config: Any, *, decoder_layers: int, encoder_layers: int | None) -> LayerMap:
    """The layers a student of this size takes over from a teacher of this configuration."""
    return LayerMap(
        encoder=spaced(config.encoder_layers if encoder_layers is None else encoder_layers, of=config.encoder_layers),
        decoder=spaced(decoder_layers, of=config.decoder_layers),
    )


def cut_student(teacher: Any, *, decoder_layers: int = 2, encoder_layers: int | None = None) -> Any:
    """A student with the teacher's weights in fewer layers, in float32 on the CPU.

    Args:
        teacher: a Whisper of any shape, or the folder of one.
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
    with torch.device("meta"):  # no time spent on random weights
        student: Any = WhisperForConditionalGeneration(WhisperConfig.from_dict(config.to_dict()))
    sources = teacher.state_dict()
    state = {name: sources[_source(name, layers)].detach().clone() for name in student.state_dict()}
    student.load_state_dict(state, assign=True)
    student.tie_weights()
    student.generation_config = deepcopy(teacher.generation_config)
    student.generation_config.alignment_heads = alignment_heads(teacher, layers)
    student.generation_config.forced_decoder_ids = None
    return student.eval()


def alignment_heads(teacher: Any, layers: LayerMap) -> list[list[int]]:
    """Heads for word timestamps: the teacher's in the layers that were kept, renumbered.

    Without any, all heads of the student's last layer: a head of a layer that is not there makes CTranslate2 read
    beyond its memory, and none at all makes transformers refuse word timestamps.
    """
    known: Sequence[Sequence[int]] = getattr(teacher.generation_config, "alignment_heads", None) or ()
    kept = [[layers.decoder.index(layer), head] for layer, head in known if layer in layers.decoder]
    last = len(layers.decoder) - 1
    return kept or [[last, head] for head in range(teacher.config.decoder_attention_heads)]


def check_vocabulary(teacher: Any, student: Any) -> None:
    """Refuse a pair whose probabilities are not over the same tokens.

    Raises:
        BadRequest
    """
    a, b = teacher.config.vocab_size, student.config.vocab_size
    if a != b:
        raise BadRequest(
            f"the teacher has {a} tokens, the student {b}: their probabilities cannot be compared",
            hint="take a student that was cut from a teacher with the same vocabulary (large-v3's differs from v2's)",
        )


def share_encoder(teacher: Any, student: Any) -> None:
    """Let the student use the teacher's own frozen encoder, once it is sure to be the same.

    Raises:
        BadRequest: it is another one.
    """
    ours, theirs = student.model.encoder.state_dict(), teacher.model.encoder.state_dict()
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise BadRequest(
            "the student's encoder is not the teacher's, so one pass cannot serve both",
            hint="set freeze_encoder=false",
        )
    student.model.encoder = teacher.model.encoder


def sizes(model: Any) -> Sizes:
    """How many parameters a Whisper has."""
    return Sizes(*(sum(p.numel() for p in part.parameters()) for part in (model.model.encoder, model.model.decoder)))


def mixed_row(weight: torch.Tensor, vocabulary: Vocabulary) -> torch.Tensor:
    """The mixed prompt's embedding, shape (width,): the mean of zh and en. Source: method.md, section 4."""
    # one row after the other: a list of places would go to a GPU first, and wait for all that is queued there
    rows = [weight[vocabulary.languages[code]] for code in MIXED_CODES]
    return torch.stack(rows).mean(dim=0)


def save_student(student: Any, folder: Path, *, tokenizer_from: Path) -> None:
    """Write a student as a transformers folder that both of k2d's engines, and other tools, load.

    The rows of zh, en and the mixed prompt all become the mixed prompt's: the student was trained with that one
    alone, so every tool gives it what it knows, whichever of the languages it asks for (docs/adr/0007).

    Raises:
        OSError: the folder cannot be written.
    """
    vocabulary = Vocabulary(tokenizer_from / "tokenizer.json")
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (tokenizer_from / name).is_file() and name not in OWN:
            shutil.copyfile(tokenizer_from / name, folder / name)
    weight = student.model.decoder.embed_tokens.weight
    rows = [vocabulary.sot_lm, *(vocabulary.languages[code] for code in MIXED_CODES)]
    with torch.no_grad():
        before = weight[rows].clone()
        weight[rows] = mixed_row(weight, vocabulary)
        try:
            student.save_pretrained(folder, safe_serialization=True)
        finally:
            weight[rows] = before


def table(teacher: Any, student: Any, layers: LayerMap | None) -> list[dict[str, Any]]:
    """Sizes side by side, one row for each part: what `k2d train` prints and the run report shows."""
    ours, theirs = sizes(student), sizes(teacher)
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


def _source(name: str, layers: LayerMap) -> str:
    """The teacher's name of a student's tensor."""
    parts = name.split(".")
    if "layers" in parts:
        at = parts.index("layers") + 1
        kept = layers.encoder if "encoder" in parts else layers.decoder
        parts[at] = str(kept[int(parts[at])])
    return ".".join(parts)
