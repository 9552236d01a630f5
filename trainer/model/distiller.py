"""Runs teacher and student on one micro-batch and computes the loss: the module that is trained.

The frozen encoder runs once for both. Shapes: B rows, T positions, N targets that count among the B × T.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import IGNORED
from trainer.model.frozen_layers import FrozenTeacher
from trainer.model.loss import Terms, distillation_loss, rows_that_fit
from trainer.model.student import mixed_embedding, share_encoder
from trainer.options import Recipe


class LossParts(NamedTuple):  # a tuple: accelerate's wrappers for several processes look for tensors in tuples
    """Sums over a micro-batch. `loss` is divided by the normaliser and carries the gradient."""

    loss: torch.Tensor  # scalar
    ce: torch.Tensor  # scalar: sum over targets, weighted
    kl: torch.Tensor  # scalar: the same, with T²


class PromptEmbedding:
    """Embeds tokens for a Whisper decoder. The mixed prompt's embedding is always the mean of zh's and en's."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def __call__(self, weight: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, T, width) of tokens (B, T), from `weight` (vocabulary, width)."""
        embedded = nn.functional.embedding(tokens, weight)  # (B, T, width)
        mixed = mixed_embedding(weight, self._vocabulary)  # (width,)
        return torch.where((tokens == self._vocabulary.sot_lm)[..., None], mixed, embedded)


class Distiller(nn.Module):
    """The student's trained parts as a module, with the frozen teacher beside it (in no optimiser, no checkpoint).

    With a frozen encoder the student is given the teacher's own, so that memory holds one.

        distiller = Distiller(teacher, student, recipe, vocabulary)
        distiller.place(device)
        parts = distiller(features, inputs, targets, weights, normaliser=100.0)
        parts.loss.backward()
    """

    def __init__(self, teacher: Any, student: Any, recipe: Recipe, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.decoder = student.model.decoder
        self.encoder = None if recipe.freeze_encoder else student.model.encoder
        teacher.requires_grad_(False)
        self.decoder.requires_grad_(True)
        self.decoder.embed_positions.requires_grad_(not recipe.freeze_positions)
        if self.encoder is None:
            share_encoder(teacher, student)
        else:
            self.encoder.requires_grad_(True)
            self.encoder.embed_positions.requires_grad_(False)  # sinusoids, never learned
        if recipe.gradient_checkpointing:
            student.gradient_checkpointing_enable({"use_reentrant": False})
        # no submodule of this one: neither wrapped nor saved with the student
        self._frozen = FrozenTeacher(teacher.model.encoder, teacher.model.decoder)
        self._frozen_dtype: torch.dtype | None = None  # of the frozen parts, where that is not float32
        self._compiled = False
        self._terms = Terms(recipe.ce_weight, recipe.kl_weight, recipe.temperature)
        self._rows = rows_that_fit(teacher.config.vocab_size, recipe.vocabulary_chunk_mib)
        self._embed = PromptEmbedding(vocabulary)

    def place(self, device: torch.device, *, dtype: torch.dtype = torch.float32, compiled: bool = False) -> None:
        """Move the frozen teacher to the student's device.

        In half precision a copy is made there and runs in it throughout: autocast would hold float32 weights, cast them
        anew for each product, and carry float32 between the layers. The original stays on the CPU, to be saved.
        """
        self._frozen_dtype = dtype if dtype != torch.float32 else None
        parts = (self._frozen.encoder, self._frozen.decoder)
        placed = (part.to(device) if self._frozen_dtype is None else _copy_to(part, device, dtype) for part in parts)
        self._frozen = FrozenTeacher(*placed, compiled=compiled)
        self._compiled = compiled

    @torch.no_grad()
    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The frozen encoder's output (B, 1500, width) for features (B, mels, 3000)."""
        with self._frozen_precision(features.device):
            return self._frozen.encode(self._cast(features))

    def forward(
        self,
        features: torch.Tensor | None,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        *,
        normaliser: float,
        encoded: torch.Tensor | None = None,
    ) -> LossParts:
        """The loss of a micro-batch.

        Args:
            features: (B, mels, 3000); None where `encoded` is given.
            inputs, targets: tokens (B, T); targets are IGNORED where nothing is learned.
            weights: of the rows, (B,). Targets and weights are best left on the CPU.
            normaliser: what sums are divided by: the weighted number of targets in the whole batch.
            encoded: the frozen encoder's output (B, 1500, width) for these rows, where it is known already.
        """
        if encoded is None:
            if features is None:
                raise ValueError("neither features nor encoded")
            encoded = self.encode(features)  # (B, 1500, width)
        student_encoded = encoded if self.encoder is None else self.encoder(features).last_hidden_state
        # Which of the B·T positions count is decided where the targets are: on a GPU that would wait for all work
        # queued there.
        counted = (targets.flatten() != IGNORED).nonzero()[:, 0]  # (N,)
        target_tokens, target_weights = (
            values.to(inputs.device, non_blocking=True)  # (N,) each
            for values in (targets.flatten()[counted], weights[:, None].expand(targets.shape).flatten()[counted])
        )
        counted = counted.to(inputs.device, non_blocking=True)
        frozen = self._frozen
        with torch.no_grad(), self._frozen_precision(inputs.device):
            embedded = self._embed(frozen.embeddings, inputs)  # (B, T, teacher's width)
            teacher = frozen.decode(embedded, self._cast(encoded)).flatten(0, 1)[counted]  # (N, teacher's width)
        weight = self.decoder.embed_tokens.weight  # (vocabulary, width): tied, so the output's as well
        hidden = _last_hidden(self.decoder, self._embed(weight, inputs), student_encoded)  # (B, T, width)
        student = hidden.flatten(0, 1)[counted]  # (N, width)
        total, ce, kl = distillation_loss(
            student,
            weight,
            teacher,
            frozen.embeddings,
            target_tokens,
            target_weights,
            terms=self._terms,
            rows=self._rows,
            compiled=self._compiled,
        )
        return LossParts(total / normaliser, ce, kl)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self._frozen_dtype is None else tensor.to(self._frozen_dtype)

    def _frozen_precision(self, device: torch.device) -> Any:
        """The context the frozen teacher runs in: without autocast where it is in half precision already."""
        return nullcontext() if self._frozen_dtype is None else torch.autocast(device.type, enabled=False)


def _copy_to(part: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A copy of an encoder or decoder on another device and in another precision."""
    with torch.device("meta"):
        copy = type(part)(part.config).to(dtype)
    copy = copy.to_empty(device=device).requires_grad_(False)
    copy.load_state_dict(part.state_dict())
    return copy


def _last_hidden(decoder: Any, embedded: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
    """A decoder's last hidden states (B, T, width) for embedded tokens (B, T, width) and audio (B, 1500, width).

    No mask is needed: padding is on the right, and attention looks to the left only.
    """
    hidden: torch.Tensor = decoder(
        inputs_embeds=embedded, encoder_hidden_states=encoded, use_cache=False
    ).last_hidden_state
    return hidden
