"""A student as a transformers folder that stands on its own: weights, settings, tokenizer, feature settings."""

import errno
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from k2d.whisper.conversion import generation_settings, preprocessor_settings
from k2d.whisper.prompts import MIXED_CODES
from k2d.whisper.vocabulary import Vocabulary
from trainer.export.tokenizer import write_tokenizer
from trainer.model.student import load_teacher

PRECISIONS = {"float16": torch.float16, "float32": torch.float32}


def write_transformers(source: Path, folder: Path, precision: str) -> None:
    """Write the model in `source`, a transformers folder, to `folder` so that plain transformers works with it offline.

    Raises:
        ModelError: the weights cannot be loaded, or the tokenizer is not Whisper's.
        OSError: the folder cannot be written.
    """
    model = load_teacher(source)
    _beside(model, source, folder)
    made = _document(folder / "generation_config.json")
    try:
        model.to(PRECISIONS[precision]).save_pretrained(folder, safe_serialization=True)
    except SafetensorError as error:  # all it says of a disk is in its message
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error
    _dump(folder / "generation_config.json", made)  # the model's own settings lack what `generation` adds


def write_beside(source: Path, folder: Path) -> None:
    """Write all but the weights: what a tool that takes its weights elsewhere still reads.

    Raises:
        ModelError, OSError: as `write_transformers`.
    """
    model = load_teacher(source)
    _beside(model, source, folder)
    model.config.save_pretrained(folder)


def _beside(model: Any, source: Path, folder: Path) -> None:
    vocabulary = Vocabulary(source / "tokenizer.json")
    known = _document(source / "generation_config.json")
    settings = generation(known, model.config, vocabulary=vocabulary, mixed=speaks_mixed(model, vocabulary))
    _dump(folder / "generation_config.json", settings)
    _dump(folder / "preprocessor_config.json", preprocessor_settings(model.config.num_mel_bins))
    write_tokenizer(source / "tokenizer.json", folder)


def generation(known: dict[str, Any], config: Any, *, vocabulary: Vocabulary, mixed: bool) -> dict[str, Any]:
    """What other tools need to know to decode as k2d does.

    Args:
        known: the model's own settings, which stay where they say more.
        config: its shape.
        mixed: it was trained with the mixed prompt alone; `zh` is then the default, as asking it to detect a
            language would ask for something it never learned.
    """
    ours = generation_settings({}, vocabulary=vocabulary)
    own = {key: value for key, value in known.items() if value is not None}
    document = {**ours, **own, "alignment_heads": alignment_heads(own.get("alignment_heads"), config)}
    for name in ("forced_decoder_ids", "_from_model_config", "transformers_version"):
        document.pop(name, None)  # a forced language would overrule the one that is asked for
    return document | ({"language": "<|zh|>", "task": "transcribe"} if mixed else {})


def alignment_heads(known: Any, config: Any) -> list[list[int]]:
    """The heads word times are read from: those of layers that exist, else all of the last half of the layers.

    CTranslate2 4.8 writes beyond its memory for a head of a layer that is not there.
    """
    layers, heads = config.decoder_layers, config.decoder_attention_heads
    kept = [[int(layer), int(head)] for layer, head in known or () if layer < layers and head < heads]
    return kept or [[layer, head] for layer in range(layers // 2, layers) for head in range(heads)]


def speaks_mixed(model: Any, vocabulary: Vocabulary) -> bool:
    """Whether zh and en are one prompt to this model, as in a student that `trainer.model.student.save_student` wrote."""
    rows = model.model.decoder.embed_tokens.weight[[vocabulary.languages[code] for code in MIXED_CODES]]
    return bool((rows == rows[0]).all())


def _document(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def _dump(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")
