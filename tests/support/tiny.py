"""A teacher small enough to train from in a test: Whisper's architecture and vocabulary, random weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration
from weights import base

SHAPE: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "num_hidden_layers": 2,  # another name of the same in this class
    "decoder_layers": 4,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}


def tiny_teacher(folder: Path, **shape: Any) -> Path:
    """Write one into `folder`; its alignment heads are in its first and third decoder layer."""
    real = base("transformers").path
    config = WhisperConfig(**{**json.loads((real / "config.json").read_text()), **SHAPE, "dtype": "float32", **shape})
    torch.manual_seed(5)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight.mul_(20.0)  # logits that differ, so that texts do
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "preprocessor_config.json", "tokenizer_config.json"):
        shutil.copyfile(real / name, folder / name)
    model.save_pretrained(folder)
    generation = json.loads((real / "generation_config.json").read_text())
    generation["alignment_heads"] = [[0, 1], [2, 0]]
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
