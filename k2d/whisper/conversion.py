"""Conversions between the two engines' weight files, both ways."""

import json
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from k2d.errors import ModelError, install_hint
from k2d.schema import SAMPLE_RATE_HZ, WINDOW_S
from k2d.whisper import ct2_file
from k2d.whisper.features import FFT_SIZE, HOP
from k2d.whisper.prompts import CONTEXT
from k2d.whisper.vocabulary import Vocabulary

Array = npt.NDArray[np.generic]

TOP = {
    "encoder/conv1": "model.encoder.conv1",
    "encoder/conv2": "model.encoder.conv2",
    "encoder/layer_norm": "model.encoder.layer_norm",
    "decoder/layer_norm": "model.decoder.layer_norm",
    "encoder/position_encodings/encodings": "model.encoder.embed_positions.weight",
    "decoder/position_encodings/encodings": "model.decoder.embed_positions.weight",
    "decoder/embeddings/weight": "model.decoder.embed_tokens.weight",
}
# CTranslate2 fuses what reads the same input; the parts follow in this order
SELF_ATTENTION = {"linear_0": ("q_proj", "k_proj", "v_proj"), "linear_1": ("out_proj",)}
CROSS_ATTENTION = {"linear_0": ("q_proj",), "linear_1": ("k_proj", "v_proj"), "linear_2": ("out_proj",)}
LAYER = re.compile(r"(encoder|decoder)/layer_(\d+)/(self_attention|attention|ffn)/(\w+)/(\w+)")
ENDINGS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def to_ctranslate2(source: Path, target: Path) -> None:
    """Convert a transformers Whisper to CTranslate2, keeping its precision.

    Raises:
        ModelError: the converter needs transformers, which is missing, or refuses the model.
    """
    try:
        import torch  # noqa: F401  the converter reads the weights with it
        import transformers  # noqa: F401  and with this
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise ModelError(
            f"{source} is a transformers model, and converting it needs {error.name}",
            hint=f"{install_hint('ct2', 'torch')}; or choose K2D_ENGINE=transformers, or give a CTranslate2 folder",
        ) from error
    hide_progress_bars()
    try:
        TransformersConverter(str(source), copy_files=["tokenizer.json"]).convert(
            str(target), quantization="float16", force=True
        )
    except (ValueError, KeyError, RuntimeError, OSError, TypeError) as error:
        raise ModelError(f"{source} cannot be converted: {error}", hint="name a Whisper model") from error


def hide_progress_bars() -> None:
    """Switch off the bars transformers draws when it loads or writes weights: a command has output of its own."""
    from transformers.utils import logging

    switch_off: Any = logging.disable_progress_bar
    switch_off()


def to_transformers(source: Path, target: Path) -> None:
    """Convert a CTranslate2 Whisper in floating point to a transformers folder.

    Tensors map one to one, at the precision they have; the key projections' bias, always zero, is not written.

    Raises:
        ModelError: the model is quantised, damaged, or safetensors is missing.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ModelError("converting needs safetensors", hint=install_hint("torch")) from error
    file = source / "model.bin"
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        perturbation = memoryview(data)
        found = ct2_file.tensors(perturbation, file=file)
        if any(name.endswith("weight_scale") for name in found):
            raise ModelError(
                f"{source} is quantised; the transformers engine needs floating point", hint="give the original model"
            )
        state = {}
        for name, tensor in found.items():
            state.update(_renamed(name, np.array(ct2_file.array(perturbation, tensor))))
        shapes = {name: tensor.shape for name, tensor in found.items()}
        heads = {side: int(ct2_file.array(perturbation, found[f"{side}/num_heads"])) for side in ("encoder", "decoder")}
        perturbation.release()
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    vocabulary = Vocabulary(source / "tokenizer.json")
    known = json.loads((source / "config.json").read_text("utf-8"))
    documents = {
        "config.json": _config(shapes, heads=heads, vocabulary=vocabulary),
        "generation_config.json": generation_settings(known, vocabulary=vocabulary),
        "preprocessor_config.json": preprocessor_settings(shapes["encoder/conv1/weight"][1]),
        "tokenizer_config.json": {"tokenizer_class": "WhisperTokenizer", "model_max_length": CONTEXT},
    }
    for name, document in documents.items():
        (target / name).write_text(json.dumps(document, indent=2), "utf-8")
    (target / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())


def _renamed(name: str, value: Array) -> dict[str, Array]:
    """One CTranslate2 tensor as transformers names it: several when it was fused, none for settings."""
    if name in TOP:
        return {TOP[name]: value}
    stem, _, ending = name.rpartition("/")
    if stem in TOP and ending in ENDINGS:
        return {f"{TOP[stem]}.{ENDINGS[ending]}": value}
    match = LAYER.fullmatch(name)
    if match is None:
        return {}
    side, number, block, part, ending = match.groups()
    layer = f"model.{side}.layers.{number}"
    if block == "ffn":
        inner = "final_layer_norm" if part == "layer_norm" else f"fc{int(part[-1]) + 1}"
        return {f"{layer}.{inner}.{ENDINGS[ending]}": value}
    theirs = "encoder_attn" if block == "attention" else "self_attn"
    if part == "layer_norm":
        return {f"{layer}.{theirs}_layer_norm.{ENDINGS[ending]}": value}
    parts = (CROSS_ATTENTION if block == "attention" else SELF_ATTENTION)[part]
    pieces = np.split(value, len(parts))
    names = (f"{layer}.{theirs}.{projection}.{ENDINGS[ending]}" for projection in parts)
    return {k: np.ascontiguousarray(v) for k, v in zip(names, pieces, strict=True) if not k.endswith("k_proj.bias")}


def _config(shapes: dict[str, tuple[int, ...]], *, heads: dict[str, int], vocabulary: Vocabulary) -> dict[str, Any]:
    rows, width = shapes["decoder/embeddings/weight"]
    layers = {side: sum(f"{side}/layer_{i}/ffn/linear_0/weight" in shapes for i in range(64)) for side in heads}
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "vocab_size": rows,
        "d_model": width,
        "num_mel_bins": shapes["encoder/conv1/weight"][1],
        "max_source_positions": shapes["encoder/position_encodings/encodings"][0],
        "max_target_positions": shapes["decoder/position_encodings/encodings"][0],
        **{f"{side}_layers": layers[side] for side in heads},
        **{f"{side}_attention_heads": heads[side] for side in heads},
        **{f"{side}_ffn_dim": shapes[f"{side}/layer_0/ffn/linear_0/weight"][0] for side in heads},
        "num_hidden_layers": layers["encoder"],
        "decoder_start_token_id": vocabulary.sot,
        "bos_token_id": vocabulary.eot,
        "eos_token_id": vocabulary.eot,
        "pad_token_id": vocabulary.eot,
        "torch_dtype": "float16",
    }


def generation_settings(known: dict[str, Any], *, vocabulary: Vocabulary) -> dict[str, Any]:
    """What transformers' own `generate` needs of a Whisper, so that the folder serves there too."""
    return {
        "alignment_heads": known.get("alignment_heads"),
        "lang_to_id": {f"<|{code}|>": id for code, id in vocabulary.languages.items()},
        "task_to_id": {"transcribe": vocabulary.transcribe, "translate": vocabulary.translate},
        "is_multilingual": True,
        "no_timestamps_token_id": vocabulary.no_timestamps,
        "prev_sot_token_id": vocabulary.sot_prev,
        "suppress_tokens": list(vocabulary.suppressed),
        "begin_suppress_tokens": list(vocabulary.suppressed_first),
        "max_initial_timestamp_index": 50,
        "max_length": CONTEXT,
        "return_timestamps": False,
        "decoder_start_token_id": vocabulary.sot,
        "bos_token_id": vocabulary.eot,
        "eos_token_id": vocabulary.eot,
        "pad_token_id": vocabulary.eot,
    }


def preprocessor_settings(mels: int) -> dict[str, Any]:
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": mels,
        "sampling_rate": SAMPLE_RATE_HZ,
        "hop_length": HOP,
        "n_fft": FFT_SIZE,
        "chunk_length": int(WINDOW_S),
        "padding_value": 0.0,
    }
