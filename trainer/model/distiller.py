"""Teacher and student on one batch: one encoder pass for both, then the loss. The module that trains."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn

from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import IGNORED
from trainer.model.frozen_layers import Frozen
from trainer.model.loss import Terms, chunk_rows, distillation_loss
from trainer.model.student import mixed_row, share_encoder
from trainer.options import Recipe


class LossParts(NamedTuple):  # a tuple: wrappers for several processes look for tensors in those
    """Sums over a micro-batch. `loss` is divided by the normaliser and carries the gradient."""

    loss: torch.Tensor
    ce: torch.Tensor  # sum over targets, weighted
    kl: torch.Tensor  # the same, with T²


class Prompted:
    """Embeds tokens for a Whisper decoder; the mixed prompt's is the mean of zh and en, always."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def __call__(self, weight: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings of shape (B, T, width) of tokens of shape (B, T)."""
        found = nn.functional.embedding(tokens, weight)
        mixed = mixed_row(weight, self._vocabulary)
        return torch.where((tokens == self._vocabulary.sot_lm)[..., None], mixed, found)


class Distiller(nn.Module):
    """The student's trained parts as a module; the frozen teacher beside it, in no optimiser and no checkpoint.

    With a frozen encoder the student is given the teacher's own, so that it is in memory once.
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
        # in no module: neither wrapped nor saved with the student
        self._frozen = Frozen(teacher.model.encoder, teacher.model.decoder)
        self._half: torch.dtype | None = None  # what the frozen parts are in, where that is not float32
        self._compiled = False
        self._terms = Terms(recipe.ce_weight, recipe.kl_weight, recipe.temperature)
        self._rows = chunk_rows(teacher.config.vocab_size, recipe.vocabulary_chunk_mib)
        self._embed = Prompted(vocabulary)

    def place(self, device: torch.device, *, dtype: torch.dtype = torch.float32, compiled: bool = False) -> None:
        """Move the frozen teacher to where the student is.

        In half precision a copy goes there, and all of it runs in that: autocast would hold float32 weights, cast
        them anew for each product, and carry float32 between the layers. The original stays on the CPU, to be saved.
        """
        self._half = dtype if dtype != torch.float32 else None
        halves = (self._frozen.encoder, self._frozen.decoder)
        placed = (part.to(device) if self._half is None else _copied(part, device, dtype) for part in halves)
        self._frozen = Frozen(*placed, compiled=compiled)
        self._compiled = compiled

    @torch.no_grad()
    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The frozen encoder's output, shape (B, 1500, width), of features of shape (B, mels, 3000)."""
        with self._own_precision(features.device):
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
            features: shape (B, mels, 3000); None when `encoded` is given.
            inputs, targets: tokens of shape (B, T); targets are IGNORED where nothing is learned.
            weights: of rows, shape (B,). With the targets, best left on the CPU.
            normaliser: what sums are divided by: the weighted number of targets in the whole batch.
            encoded: the frozen encoder's output for these rows, where it is known already.
        """
        if encoded is None:
            if features is None:
                raise ValueError("neither features nor encoded")
            encoded = self.encode(features)
        heard = encoded if self.encoder is None else self.encoder(features).last_hidden_state
        # places are found where the targets are: on a GPU that would wait for all that is queued there
        learned = (targets.flatten() != IGNORED).nonzero()[:, 0]
        aims, shares = (
            held.to(inputs.device, non_blocking=True)
            for held in (targets.flatten()[learned], weights[:, None].expand(targets.shape).flatten()[learned])
        )
        learned = learned.to(inputs.device, non_blocking=True)
        frozen = self._frozen
        with torch.no_grad(), self._own_precision(inputs.device):
            embedded = self._embed(frozen.embeddings, inputs)
            teacher = frozen.decode(embedded, self._cast(encoded)).flatten(0, 1)[learned]
        weight = self.decoder.embed_tokens.weight
        student = _hidden(self.decoder, self._embed(weight, inputs), heard).flatten(0, 1)[learned]
        total, ce, kl = distillation_loss(
            student,
            weight,
            teacher,
            frozen.embeddings,
            aims,
            shares,
            terms=self._terms,
            rows=self._rows,
            compiled=self._compiled,
        )
        return LossParts(total / normaliser, ce, kl)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self._half is None else tensor.to(self._half)

    def _own_precision(self, device: torch.device) -> Any:
        """What the frozen teacher runs under: no autocast where it is in half precision already."""
        return nullcontext() if self._half is None else torch.autocast(device.type, enabled=False)


def _copied(part: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """An encoder or decoder like `part`, elsewhere and in another precision."""
    with torch.device("meta"):
        copy = type(part)(part.config).to(dtype)
    copy = copy.to_empty(device=device).requires_grad_(False)
    copy.load_state_dict(part.state_dict())
    return copy


def _hidden(decoder: Any, embedded: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
    """A decoder's last hidden states. Padding is on the right and attention looks left: no mask is needed."""
    hidden: torch.Tensor = decoder(
        inputs_embeds=embedded, encoder_hidden_states=encoded, use_cache=False
    ).last_hidden_state
    return hidden
