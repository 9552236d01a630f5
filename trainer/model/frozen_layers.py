"""The frozen teacher's encoder and decoder, run on their own weights without what training and decoding need.

transformers copies queries, keys and values once more in every layer, and carries the convolutions' layout (time last)
through all of them, so that each norm and each sum reads memory in strides: a third of the time on a GPU. There is no
cache, dropout, mask or checkpoint here. Results are those of transformers but for rounding; a test compares them.

Shapes: B rows, T positions; the encoder has 1500 positions of 20 ms each.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

LayerFunction = Callable[..., torch.Tensor]


class FrozenTeacher:
    """A teacher's encoder and decoder as two functions.

    frozen = FrozenTeacher(model.model.encoder, model.model.decoder)
    hidden = frozen.decode(frozen.embeddings[tokens], frozen.encode(features))
    """

    def __init__(self, encoder: Any, decoder: Any, *, compiled: bool = False) -> None:
        self.encoder, self.decoder = encoder.eval(), decoder.eval()
        # one layer is compiled, not all of them: they are the same program, so that takes seconds
        self._encoder_layer: LayerFunction = torch.compile(encoder_layer) if compiled else encoder_layer
        self._decoder_layer: LayerFunction = torch.compile(decoder_layer) if compiled else decoder_layer

    @property
    def embeddings(self) -> torch.Tensor:
        """Of tokens, for input and output; shape (vocabulary, width)."""
        weight: torch.Tensor = self.decoder.embed_tokens.weight
        return weight

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The encoder's output (B, 1500, width) for features (B, mels, 3000)."""
        part = self.encoder
        hidden = gelu(part.conv2(gelu(part.conv1(features))))  # (B, width, 1500): the second one halves the time
        hidden = hidden.transpose(1, 2).contiguous() + part.embed_positions.weight  # (B, 1500, width)
        for layer in part.layers:
            hidden = self._encoder_layer(layer, hidden)
        return _norm(part.layer_norm, hidden)

    def decode(self, embedded: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """The decoder's last hidden states (B, T, width) for embedded tokens of that shape.

        No mask is needed: padding is on the right, and attention looks to the left only.
        """
        part = self.decoder
        hidden = embedded + part.embed_positions.weight[: embedded.shape[1]]  # (B, T, width)
        for layer in part.layers:
            hidden = self._decoder_layer(layer, hidden, encoded)
        return _norm(part.layer_norm, hidden)


def encoder_layer(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """One layer of a Whisper encoder; shapes (B, 1500, width)."""
    hidden = hidden + _attend(layer.self_attn, _norm(layer.self_attn_layer_norm, hidden))
    return _feed_forward(layer, hidden)


def decoder_layer(layer: Any, hidden: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
    """One layer of a Whisper decoder; shapes (B, T, width) and (B, 1500, width)."""
    hidden = hidden + _attend(layer.self_attn, _norm(layer.self_attn_layer_norm, hidden), causal=True)
    hidden = hidden + _attend(layer.encoder_attn, _norm(layer.encoder_attn_layer_norm, hidden), encoded)
    return _feed_forward(layer, hidden)


def _feed_forward(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """(B, T, width) → (B, T, 4 · width) → (B, T, width), added to what came in."""
    inner = layer.activation_fn(layer.fc1(_norm(layer.final_layer_norm, hidden)))
    change: torch.Tensor = layer.fc2(inner)
    return hidden + change


def _attend(attention: Any, hidden: torch.Tensor, over: torch.Tensor | None = None, *, causal: bool = False) -> Any:
    """Attention of `hidden` (B, T, width) over itself, or over `over` (B, S, width); shape (B, T, width)."""
    source = hidden if over is None else over
    heads = (attention.num_heads, attention.head_dim)
    query = attention.q_proj(hidden).unflatten(-1, heads).transpose(1, 2)  # (B, heads, T, width of a head)
    key, value = (  # (B, heads, S, width of a head) each
        project(source).unflatten(-1, heads).transpose(1, 2) for project in (attention.k_proj, attention.v_proj)
    )
    mixed = scaled_dot_product_attention(query, key, value, is_causal=causal, scale=attention.scaling)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def _norm(norm: nn.LayerNorm, hidden: torch.Tensor) -> torch.Tensor:
    normed: torch.Tensor = norm(hidden)
    return normed
