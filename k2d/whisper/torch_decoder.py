"""Whisper's decoder over many windows at once, several rows each, with key-value caches of a fixed size.

The layers are those of `transformers`; the walk through them is written here, because a cache that grows by a copy at
each token, and a cross-attention whose keys are repeated for each beam, take most of the time of a batch. Keys of the
audio are stored once a window: its rows are the queries of one attention.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn.functional import gelu, scaled_dot_product_attention

NEVER: Final = float("-inf")
BUCKET: Final = 64  # positions by which the attended part of the cache grows, so that few shapes occur


@dataclass(slots=True)
class DecoderCache:
    """Keys and values of some windows, `rows` rows each; a list has one entry a layer."""

    audio_keys: list[torch.Tensor]  # (windows, heads, frames, depth)
    audio_values: list[torch.Tensor]
    keys: list[torch.Tensor]  # (windows × rows, heads, positions, depth)
    values: list[torch.Tensor]
    rows: int
    filled: int = 0  # positions

    def reorder(self, rows: torch.Tensor) -> None:
        """Continue each row from the row whose index stands in `rows`, shape (windows × rows,)."""
        for cache in (*self.keys, *self.values):
            cache[:, :, : self.filled] = cache[rows, :, : self.filled]

    def select(self, windows: torch.Tensor, rows: torch.Tensor) -> None:
        """Keep these windows and their rows only."""
        self.audio_keys = [cache[windows] for cache in self.audio_keys]
        self.audio_values = [cache[windows] for cache in self.audio_values]
        self.keys = [cache[rows] for cache in self.keys]
        self.values = [cache[rows] for cache in self.values]


class WindowDecoder:
    """The decoder of a Whisper model in transformers.

    cache = decoder.begin(encoded, rows=5, positions=448)
    hidden = decoder.prefill(cache, prompts)
    logits = decoder.logits(hidden[:, -1]).repeat_interleave(5, dim=0)
    logits = decoder.step(cache, tokens)  # and again, up to `positions`
    """

    def __init__(self, model: Any, *, never: int) -> None:
        """`never`: a token that gets no probability: the mixed row is a prompt, and is never predicted."""
        decoder = model.model.decoder
        self._layers: list[Any] = list(decoder.layers)
        self._embeddings: torch.Tensor = decoder.embed_tokens.weight
        self._positions: torch.Tensor = decoder.embed_positions.weight
        self._norm = decoder.layer_norm
        self._project = model.proj_out
        self._heads = int(model.config.decoder_attention_heads)
        self._never = never

    def begin(self, encoded: torch.Tensor, *, rows: int, positions: int) -> DecoderCache:
        """Make the cache for encoder output of shape (windows, frames, width), with room for `positions` tokens."""
        attentions = [layer.encoder_attn for layer in self._layers]
        windows, _, width = encoded.shape
        shape = (windows * rows, self._heads, positions, width // self._heads)
        return DecoderCache(
            audio_keys=[self._split(attention.k_proj(encoded)).contiguous() for attention in attentions],
            audio_values=[self._split(attention.v_proj(encoded)).contiguous() for attention in attentions],
            keys=[encoded.new_zeros(shape) for _ in attentions],
            values=[encoded.new_zeros(shape) for _ in attentions],
            rows=rows,
        )

    def prefill(self, cache: DecoderCache, tokens: torch.Tensor) -> torch.Tensor:
        """Run the first tokens of each window, shape (windows, tokens), for all of its rows.

        Returns the states behind each token, shape (windows, tokens, width).
        """
        length = tokens.shape[1]
        hidden = self._embeddings[tokens] + self._positions[:length]
        for number, layer in enumerate(self._layers):
            own = layer.self_attn
            normed = layer.self_attn_layer_norm(hidden)
            keys, values = self._split(own.k_proj(normed)), self._split(own.v_proj(normed))
            cache.keys[number][:, :, :length] = keys.repeat_interleave(cache.rows, dim=0)
            cache.values[number][:, :, :length] = values.repeat_interleave(cache.rows, dim=0)
            attended = scaled_dot_product_attention(self._split(own.q_proj(normed)), keys, values, is_causal=True)
            hidden = hidden + own.out_proj(self._joined(attended))
            hidden = self._listen(layer, hidden, cache, number)
        cache.filled = length
        return self._norm(hidden)  # type: ignore[no-any-return]

    def step(self, cache: DecoderCache, tokens: torch.Tensor) -> torch.Tensor:
        """Run one more token of each row, shape (windows × rows,); the logits of the next, (windows × rows, tokens)."""
        at = torch.tensor([cache.filled], device=tokens.device)
        seen = min(-(-(cache.filled + 1) // BUCKET) * BUCKET, cache.keys[0].shape[2])
        mask = (torch.arange(seen, device=tokens.device) <= at)[None, None, None, :]
        hidden = (self._embeddings[tokens] + self._positions[cache.filled])[:, None]
        windows = len(tokens) // cache.rows
        for number, layer in enumerate(self._layers):
            own = layer.self_attn
            normed = layer.self_attn_layer_norm(hidden)
            keys, values = cache.keys[number], cache.values[number]
            keys.index_copy_(2, at, self._split(own.k_proj(normed)))
            values.index_copy_(2, at, self._split(own.v_proj(normed)))
            attended = scaled_dot_product_attention(
                self._split(own.q_proj(normed)), keys[:, :, :seen], values[:, :, :seen], attn_mask=mask
            )
            hidden = hidden + own.out_proj(self._joined(attended))
            of_windows = hidden.view(windows, cache.rows, -1)
            hidden = self._listen(layer, of_windows, cache, number).view(len(tokens), 1, -1)
        cache.filled += 1
        return self.logits(self._norm(hidden)[:, 0])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits of the tokens behind states of shape (…, width), in float32."""
        logits: torch.Tensor = self._project(hidden).float()
        logits[..., self._never] = NEVER
        return logits

    def _listen(self, layer: Any, hidden: torch.Tensor, cache: DecoderCache, number: int) -> torch.Tensor:
        """Attention to the audio, and what follows it in a layer; `hidden` has shape (windows, queries, width)."""
        audio = layer.encoder_attn
        queries = self._split(audio.q_proj(layer.encoder_attn_layer_norm(hidden)))
        attended = scaled_dot_product_attention(queries, cache.audio_keys[number], cache.audio_values[number])
        hidden = hidden + audio.out_proj(self._joined(attended))
        return hidden + layer.fc2(gelu(layer.fc1(layer.final_layer_norm(hidden))))  # type: ignore[no-any-return]

    def _split(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, n, width) → (…, heads, n, depth)."""
        *rest, width = hidden.shape
        return hidden.view(*rest, self._heads, width // self._heads).transpose(-3, -2)

    def _joined(self, attended: torch.Tensor) -> torch.Tensor:
        return attended.transpose(-3, -2).flatten(-2)
