"""The frozen teacher's encoder and decoder, run on their own weights without what training and decoding need.

transformers copies queries, keys and values once more in every layer, and carries the convolutions' layout (time last)
through all of them, so that each norm and each sum reads memory in strides: a third of the time on a GPU. There is no
cache, dropout, mask or checkpoint here. Results are those of transformers but for rounding; a test compares them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

Step = Callable[..., torch.Tensor]


class Frozen:
    """A teacher's two halves, callable."""

    def __init__(self, encoder: Any, decoder: Any, *, compiled: bool = False) -> None:
        self.encoder, self.decoder = encoder.eval(), decoder.eval()
        # a layer, not all of them: they are one program, so compiling takes seconds
        self._encoder_layer: Step = torch.compile(encoder_layer) if compiled else encoder_layer
        self._decoder_layer: Step = torch.compile(decoder_layer) if compiled else decoder_layer

    @property
    def embeddings(self) -> torch.Tensor:
        """Of tokens, in and out; shape (vocabulary, width)."""
        weight: torch.Tensor = self.decoder.embed_tokens.weight
        return weight

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The encoder's output, shape (B, 1500, width), of features of shape (B, mels, 3000)."""
        part = self.encoder
        hidden = gelu(part.conv2(gelu(part.conv1(features))))
        hidden = hidden.transpose(1, 2).contiguous() + part.embed_positions.weight
        for layer in part.layers:
            hidden = self._encoder_layer(layer, hidden)
        return _normed(part.layer_norm, hidden)

    def decode(self, embedded: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """The decoder's last hidden states, shape (B, T, width), of embedded tokens of that shape.

        Padding is on the right and attention looks left: no mask is needed.
        """
        part = self.decoder
        hidden = embedded + part.embed_positions.weight[: embedded.shape[1]]
        for layer in part.layers:
            hidden = self._decoder_layer(layer, hidden, encoded)
        return _normed(part.layer_norm, hidden)


def encoder_layer(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """One layer of a Whisper encoder; shapes (B, 1500, width)."""
    hidden = hidden + _attended(layer.self_attn, _normed(layer.self_attn_layer_norm, hidden))
    return _fed_forward(layer, hidden)


def decoder_layer(layer: Any, hidden: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
    """One layer of a Whisper decoder; shapes (B, T, width) and (B, 1500, width)."""
    hidden = hidden + _attended(layer.self_attn, _normed(layer.self_attn_layer_norm, hidden), causal=True)
    hidden = hidden + _attended(layer.encoder_attn, _normed(layer.encoder_attn_layer_norm, hidden), encoded)
    return _fed_forward(layer, hidden)


def _fed_forward(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    inner = layer.activation_fn(layer.fc1(_normed(layer.final_layer_norm, hidden)))
    fed: torch.Tensor = layer.fc2(inner)
    return hidden + fed


def _attended(attention: Any, hidden: torch.Tensor, over: torch.Tensor | None = None, *, causal: bool = False) -> Any:
    source = hidden if over is None else over
    heads = (attention.num_heads, attention.head_dim)
    query = attention.q_proj(hidden).unflatten(-1, heads).transpose(1, 2)
    key, value = (
        project(source).unflatten(-1, heads).transpose(1, 2) for project in (attention.k_proj, attention.v_proj)
    )
    found = scaled_dot_product_attention(query, key, value, is_causal=causal, scale=attention.scaling)
    return attention.out_proj(found.transpose(1, 2).flatten(2))


def _normed(norm: nn.LayerNorm, hidden: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = norm(hidden)
    return found
