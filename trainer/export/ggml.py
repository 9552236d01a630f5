"""Writes a student as one file for whisper.cpp, in its own format.

The layout (whisper.cpp, models/README.md and whisper_model_load; all numbers little-endian, 32 bits): the magic number;
eleven sizes; the mel filters; the vocabulary's tokens as bytes; then tensors, each with its dimensions (innermost
first), type and OpenAI's name. whisper.cpp's own script for transformers folders (models/convert-h5-to-ggml.py) is not
a package, and needs a checkout of openai/whisper. The result is tested with whisper.cpp itself (pywhispercpp).
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from k2d.errors import ModelError
from k2d.whisper.features import mel_filters
from trainer.model.student import load_teacher

FILE: Final = "ggml-model.bin"
WIDENING: Final = 4  # of the inner layers, in every Whisper; whisper.cpp has it built in
MAGIC: Final = 0x67676D6C  # "ggml"
FLOAT32, FLOAT16 = 0, 1  # the file's types
DTYPES: Final = {FLOAT32: "<f4", FLOAT16: "<f2"}
# what whisper.cpp adds up in float32, whatever the file's precision
ALWAYS_FLOAT32: Final = ("positional_embedding",)

# transformers' names of a layer's parts → OpenAI's
PARTS: Final = {
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
}
WHOLE: Final = {
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.embed_tokens.weight": "decoder.token_embedding.weight",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
}


def write_ggml(source: Path, folder: Path, precision: str) -> None:
    """Write the model in `source`, a transformers folder, to `folder`.

    Args:
        precision: "float16" or "float32"; whisper.cpp's `quantize` makes smaller files of either.

    Raises:
        ModelError: the weights cannot be loaded, or the tokenizer is not Whisper's.
        OSError: the folder cannot be written.
    """
    model = load_teacher(source)
    for side in ("encoder", "decoder"):
        if getattr(model.config, f"{side}_ffn_dim") != WIDENING * model.config.d_model:  # its loader would crash
            raise ModelError(
                f"whisper.cpp runs Whispers whose inner layers are {WIDENING} times as wide; this {side}'s are not",
                hint="export to another format",
            )
    kind = FLOAT16 if precision == "float16" else FLOAT32
    with (folder / FILE).open("wb") as file:
        _numbers(file, MAGIC, *_sizes(model.config), kind)
        filters = mel_filters(model.config.num_mel_bins)
        _numbers(file, *filters.shape)
        file.write(filters.astype("<f4").tobytes())
        tokens = token_bytes(source / "tokenizer.json")
        _numbers(file, len(tokens))
        for token in tokens:
            _numbers(file, len(token))
            file.write(token)
        for name, values in tensors(model):
            _tensor(file, name, values, kind)


def tensors(model: Any) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """The model's weights by OpenAI's names, each once; biases of convolutions as columns."""
    for name, tensor in model.model.state_dict().items():
        theirs = openai_name(name)
        values = tensor.detach().float().numpy()
        yield theirs, values[:, None] if theirs.endswith(("conv1.bias", "conv2.bias")) else values


def openai_name(name: str) -> str:
    """OpenAI's name for a tensor of transformers' Whisper."""
    if name in WHOLE:
        return WHOLE[name]
    stem, _, ending = name.rpartition(".")
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{ending}"
    side, _, rest = stem.partition(".layers.")
    if not rest:
        return name  # the convolutions
    number, _, part = rest.partition(".")
    return f"{side}.blocks.{number}.{PARTS[part]}.{ending}"


def token_bytes(tokenizer: Path) -> list[bytes]:
    """The bytes of every text token, by id; whisper.cpp knows special tokens by their ids.

    Byte-level BPE writes each byte as one printable character (GPT-2's table): those that are printable as themselves,
    the others as the characters from U+0100 on, in order.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
    document = json.loads(tokenizer.read_text("utf-8"))
    special = {token["content"] for token in document["added_tokens"]}
    known = sorted((id, token) for token, id in document["model"]["vocab"].items() if token not in special)
    return [bytes(byte_of[character] for character in token) for _, token in known]


def _sizes(config: Any) -> tuple[int, ...]:
    return (
        config.vocab_size,
        config.max_source_positions,
        config.d_model,
        config.encoder_attention_heads,
        config.encoder_layers,
        config.max_target_positions,
        config.d_model,
        config.decoder_attention_heads,
        config.decoder_layers,
        config.num_mel_bins,
    )


def _tensor(file: BinaryIO, name: str, values: npt.NDArray[np.float32], kind: int) -> None:
    """One tensor; vectors, columns and positions stay in float32."""
    if values.ndim < 2 or values.shape[-1] == 1 or name.endswith(ALWAYS_FLOAT32):
        kind = FLOAT32
    encoded_name = name.encode()
    _numbers(file, values.ndim, len(encoded_name), kind, *reversed(values.shape))
    file.write(encoded_name)
    file.write(np.ascontiguousarray(values, DTYPES[kind]).tobytes())


def _numbers(file: BinaryIO, *values: int) -> None:
    file.write(struct.pack(f"<{len(values)}i", *values))
