"""Converts models between the two engines' file formats, in both directions."""

import json
import mmap
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.errors import ModelError, install_hint
from k2d.schema import SAMPLE_RATE_HZ, WINDOW_S
from k2d.whisper import ct2_file
from k2d.whisper.features import FFT_SIZE, HOP
from k2d.whisper.prompts import CONTEXT
from k2d.whisper.vocabulary import Vocabulary

Array = npt.NDArray[np.generic]

TOP: Final = {
    "encoder/conv1": "model.encoder.conv1",
    "encoder/conv2": "model.encoder.conv2",
    "encoder/layer_norm": "model.encoder.layer_norm",
    "decoder/layer_norm": "model.decoder.layer_norm",
    "encoder/position_encodings/encodings": "model.encoder.embed_positions.weight",
    "decoder/position_encodings/encodings": "model.decoder.embed_positions.weight",
    "decoder/embeddings/weight": "model.decoder.embed_tokens.weight",
}
# CTranslate2 fuses projections with the same input, concatenated in this order
SELF_ATTENTION: Final = {"linear_0": ("q_proj", "k_proj", "v_proj"), "linear_1": ("out_proj",)}
CROSS_ATTENTION: Final = {"linear_0": ("q_proj",), "linear_1": ("k_proj", "v_proj"), "linear_2": ("out_proj",)}
LAYER: Final = re.compile(r"(encoder|decoder)/layer_(\d+)/(self_attention|attention|ffn)/(\w+)/(\w+)")
ENDINGS: Final = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def to_ctranslate2(source: Path, target: Path) -> None:
    """Convert a transformers Whisper to CTranslate2, with weights in float16.

    Raises:
        ModelError: transformers is not installed, or the converter refuses the model.
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
    """Switch off transformers' progress bars, which would interleave with a command's own output."""
    from transformers.utils import logging

    switch_off: Any = logging.disable_progress_bar
    switch_off()


def to_transformers(source: Path, target: Path) -> None:
    """Convert a CTranslate2 Whisper in floating point to transformers.

    Tensors are copied in their precision; the bias of key projections, which is always zero, is left out.

    Raises:
        ModelError: the model is quantised or damaged, or safetensors is not installed.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ModelError("converting needs safetensors", hint=install_hint("torch")) from error
    file = source / "model.bin"
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        tensors = ct2_file.tensors(view, file=file)
        if any(name.endswith("weight_scale") for name in tensors):
            raise ModelError(
                f"{source} is quantised; the transformers engine needs floating point", hint="give the original model"
            )
        state = {}
        for name, tensor in tensors.items():
            state.update(_renamed(name, np.array(ct2_file.array(view, tensor))))
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        heads = {side: int(ct2_file.array(view, tensors[f"{side}/num_heads"])) for side in ("encoder", "decoder")}
        view.release()
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    vocabulary = Vocabulary(source / "tokenizer.json")
    config = json.loads((source / "config.json").read_text("utf-8"))
    documents = {
        "config.json": _config(shapes, heads=heads, vocabulary=vocabulary),
        "generation_config.json": generation_settings(config, vocabulary=vocabulary),
        "preprocessor_config.json": preprocessor_settings(shapes["encoder/conv1/weight"][1]),
        "tokenizer_config.json": {"tokenizer_class": "WhisperTokenizer", "model_max_length": CONTEXT},
    }
    for name, document in documents.items():
        (target / name).write_text(json.dumps(document, indent=2), "utf-8")
    (target / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())


def _renamed(name: str, value: Array) -> dict[str, Array]:
    """A CTranslate2 tensor under transformers' names: several if it is fused, none if it is a setting."""
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
    attention = "encoder_attn" if block == "attention" else "self_attn"
    if part == "layer_norm":
        return {f"{layer}.{attention}_layer_norm.{ENDINGS[ending]}": value}
    parts = (CROSS_ATTENTION if block == "attention" else SELF_ATTENTION)[part]
    pieces = np.split(value, len(parts))
    names = (f"{layer}.{attention}.{projection}.{ENDINGS[ending]}" for projection in parts)
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


def generation_settings(config: dict[str, Any], *, vocabulary: Vocabulary) -> dict[str, Any]:
    """The generation_config.json that transformers' `generate` needs for a Whisper."""
    return {
        "alignment_heads": config.get("alignment_heads"),
        **(_prompt_settings(vocabulary) if vocabulary.is_multilingual else {}),
        "is_multilingual": vocabulary.is_multilingual,
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


def _prompt_settings(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "lang_to_id": {f"<|{code}|>": id for code, id in vocabulary.languages.items()},
        "task_to_id": {"transcribe": vocabulary.transcribe, "translate": vocabulary.translate},
    }


def preprocessor_settings(mels: int) -> dict[str, Any]:
    """The preprocessor_config.json of a Whisper with so many mel bands."""
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
