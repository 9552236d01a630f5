"""Exports a student as ONNX graphs: encoder, decoder for the prompt, decoder for one more token with cached keys.

Files and tensor names follow optimum's, which ONNX Runtime programs for Whisper read: `encoder_model.onnx`,
`decoder_model.onnx`, `decoder_with_past_model.onnx`; `past_key_values.0.decoder.key` and so on. optimum's own exporter
needs an older transformers than this project's, so the graphs come from torch's exporter and the modules below.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from k2d.errors import ModelError
from k2d.whisper.features import FRAMES
from trainer.export.onnx_decoding import ENCODER, PROMPT, STEP
from trainer.export.onnx_files import quantise, share_weights
from trainer.model.student import load_teacher

ENCODER_DATA: Final = "encoder_model.onnx_data"  # the weights
DECODER_DATA: Final = "decoder_model.onnx_data"
OPSET: Final = 18  # the one torch's exporter is written for; others it would convert to
EXAMPLE_TOKENS: Final = 5  # any number above 1: the traced graphs take any

KeysAndValues = tuple[torch.Tensor, torch.Tensor]  # each (rows, heads, time, width of a head)


def write_onnx(source: Path, folder: Path, precision: str) -> None:
    """Export the model in `source`, a transformers folder, to three graphs in `folder`.

    Args:
        precision: "float32"; "float16"; or "int8": matrix products with weights in 8 bits and dynamic activations.

    Raises:
        ModelError: torch's exporter cannot trace the model.
        OSError: the folder cannot be written.
    """
    model = load_teacher(source).to(torch.float16 if precision == "float16" else torch.float32)
    with torch.inference_mode(False), torch.no_grad():
        _export_encoder(model, folder / ENCODER)
        _export_prompt(model, folder / PROMPT)
        _export_step(model, folder / STEP)
    if precision == "int8":
        for name in (ENCODER, PROMPT, STEP):
            quantise(folder / name)
    share_weights([folder / ENCODER], folder / ENCODER_DATA)
    share_weights([folder / PROMPT, folder / STEP], folder / DECODER_DATA)


class EncoderGraph(nn.Module):
    """Features (rows, mels, 3000) → (rows, 1500, width)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.model.encoder

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.encoder(input_features).last_hidden_state
        return hidden


class DecoderGraph(nn.Module):
    """Whisper's decoder over the modules of transformers, with every key and value as input and output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = model.model.decoder
        self.heads = model.config.decoder_attention_heads

    def run(
        self, ids: torch.Tensor, *, at: int | torch.Tensor, past: list[KeysAndValues], cross: list[KeysAndValues]
    ) -> Any:
        """Logits (rows, tokens, vocabulary) and each layer's own keys and values, those of `past` included.

        Args:
            ids: (rows, tokens); a single token where there is a past, all of which it may attend to: no mask is needed.
            at: the first token's position.
        """
        positions = self.decoder.embed_positions.weight[torch.arange(ids.shape[1]) + at]
        hidden, present = self.decoder.embed_tokens(ids) + positions, []
        for number, layer in enumerate(self.decoder.layers):
            normal = layer.self_attn_layer_norm(hidden)
            keys, values = self.project(layer.self_attn, normal)
            if past:
                keys = torch.cat([past[number][0], keys], dim=2)
                values = torch.cat([past[number][1], values], dim=2)
            present.append((keys, values))
            hidden = hidden + self.attend(layer.self_attn, normal, (keys, values), causal=not past)
            normal = layer.encoder_attn_layer_norm(hidden)
            hidden = hidden + self.attend(layer.encoder_attn, normal, cross[number], causal=False)
            hidden = hidden + layer.fc2(gelu(layer.fc1(layer.final_layer_norm(hidden))))
        return self.decoder.layer_norm(hidden) @ self.decoder.embed_tokens.weight.T, present

    def project(self, attention: Any, source: torch.Tensor) -> KeysAndValues:
        return self.split(attention.k_proj(source)), self.split(attention.v_proj(source))

    def attend(self, attention: Any, hidden: torch.Tensor, pair: KeysAndValues, *, causal: bool) -> torch.Tensor:
        mixed = scaled_dot_product_attention(self.split(attention.q_proj(hidden)), *pair, is_causal=causal)
        joined: torch.Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
        return joined

    def split(self, hidden: torch.Tensor) -> torch.Tensor:
        rows, tokens, width = hidden.shape
        return hidden.view(rows, tokens, self.heads, width // self.heads).transpose(1, 2)


class PromptGraph(DecoderGraph):
    """The decoder over the prompt: logits, then each layer's keys and values, its own and those of the audio."""

    def forward(self, input_ids: torch.Tensor, encoder_hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cross = [self.project(layer.encoder_attn, encoder_hidden_states) for layer in self.decoder.layers]
        logits, present = self.run(input_ids, at=0, past=[], cross=cross)
        return (logits, *(tensor for own, of_audio in zip(present, cross, strict=True) for tensor in (*own, *of_audio)))


class StepGraph(DecoderGraph):
    """The decoder over one more token: logits, then each layer's own keys and values, one longer."""

    def forward(self, input_ids: torch.Tensor, past: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        own = [(past[at], past[at + 1]) for at in range(0, len(past), 4)]
        cross = [(past[at + 2], past[at + 3]) for at in range(0, len(past), 4)]
        logits, present = self.run(input_ids, at=own[0][0].shape[2], past=own, cross=cross)
        return (logits, *(tensor for pair in present for tensor in pair))


def cache_names(layers: int, *, prefix: str, sides: tuple[str, ...]) -> list[str]:
    """optimum's names of each layer's keys and values, in its order."""
    return [f"{prefix}.{i}.{side}.{part}" for i in range(layers) for side in sides for part in ("key", "value")]


def _export_encoder(model: Any, file: Path) -> None:
    features = torch.zeros(2, model.config.num_mel_bins, FRAMES, dtype=model.dtype)
    shapes = {"input_features": {0: torch.export.Dim("rows")}}
    _export(EncoderGraph(model), (features,), file, shapes, inputs=["input_features"], outputs=["last_hidden_state"])


def _export_prompt(model: Any, file: Path) -> None:
    config, rows = model.config, torch.export.Dim("rows")
    hidden = torch.zeros(2, config.max_source_positions, config.d_model, dtype=model.dtype)
    ids = torch.zeros(2, EXAMPLE_TOKENS, dtype=torch.int64)
    inputs = ["input_ids", "encoder_hidden_states"]
    tokens = torch.export.Dim("tokens", max=config.max_target_positions)
    shapes = {"input_ids": {0: rows, 1: tokens}, "encoder_hidden_states": {0: rows}}
    outputs = ["logits", *cache_names(config.decoder_layers, prefix="present", sides=("decoder", "encoder"))]
    _export(PromptGraph(model), (ids, hidden), file, shapes, inputs=inputs, outputs=outputs)


def _export_step(model: Any, file: Path) -> None:
    config, rows = model.config, torch.export.Dim("rows")
    before = torch.export.Dim("before", max=config.max_target_positions - 1)
    width = config.d_model // config.decoder_attention_heads
    past, past_shapes = [], []
    for name in cache_names(config.decoder_layers, prefix="past_key_values", sides=("decoder", "encoder")):
        own = ".decoder." in name
        length = EXAMPLE_TOKENS if own else config.max_source_positions
        past.append(torch.zeros(2, config.decoder_attention_heads, length, width, dtype=model.dtype))
        past_shapes.append({0: rows, 2: before} if own else {0: rows})
    ids = torch.zeros(2, 1, dtype=torch.int64)
    inputs = ["input_ids", *cache_names(config.decoder_layers, prefix="past_key_values", sides=("decoder", "encoder"))]
    outputs = ["logits", *cache_names(config.decoder_layers, prefix="present", sides=("decoder",))]
    _export(
        StepGraph(model),
        (ids, past),
        file,
        {"input_ids": {0: rows}, "past": past_shapes},
        inputs=inputs,
        outputs=outputs,
    )


def _export(
    module: nn.Module, example: tuple[Any, ...], file: Path, shapes: Any, *, inputs: list[str], outputs: list[str]
) -> None:
    try:
        with hide_warnings():
            torch.onnx.export(
                module.eval(),
                example,
                str(file),
                input_names=inputs,
                output_names=outputs,
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=shapes,
                external_data=True,
                verbose=False,
            )
    except (RuntimeError, TypeError, ValueError) as error:  # the exporter's own errors are RuntimeErrors
        raise ModelError(f"{file.name} cannot be exported: {error}", hint="name a Whisper model") from error


@contextmanager
def hide_warnings() -> Iterator[None]:
    """Hide the exporter's warnings about packages and names that do not concern these graphs."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        registry.setLevel(before)
