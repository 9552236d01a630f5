"""The step that ours is measured against: distil-whisper's `training/run_distillation.py`, written anew, plainly.

Read at commit cc96130 (January 2025); line numbers are of that file. What a step of theirs does, and this one too:

- The encoder is frozen and one object for both models (1023, 1046-1049); the student runs it, the teacher gets its
  output (1474-1478).
- Labels are padded to `max_length`: all 448 positions of Whisper's decoder, 447 after the shift, however short the
  rows are (1417-1424, 1092-1094, 453-462). `padding="longest"` is the variant that they do not use.
- Ignored are padding and what stands before `<|startoftranscript|>`; language, task and `<|notimestamps|>` count as
  targets (464-472).
- Both models return logits of shape (B, T, vocabulary), in float32 also under autocast, for accelerate converts them
  (the wrapped forward). Cross-entropy is the model's own; KL is made of a softmax, a log-softmax and their pointwise
  divergence, each of that shape again (1453-1461, 1482-1493).
- The teacher is called with `labels` alone, so transformers derives its inputs from them (1478): in a row with
  previous text it sees padding where the student sees that text.
- loss = 0.8 CE + kl_weight · KL · T² (1493); AdamW on what is trained, no decay by default; gradients clipped at 1
  (1402-1413, 1608-1612). The teacher is in half precision where training is, the student in float32 (986-1007).

The learning-rate schedule and the trackers are left out: they cost nothing a step.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

POSITIONS = 448  # of Whisper's decoder: `max_length` of its configuration
IGNORED = -100
CE_WEIGHT = 0.8
Padding = Literal["max_length", "longest"]
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars; `loss` has a gradient."""

    loss: torch.Tensor
    ce: torch.Tensor
    kl: torch.Tensor


def share(teacher: Any, student: Any) -> None:
    """Freeze the student's encoder and decoder positions, and give the teacher that encoder."""
    for frozen in (student.model.encoder, student.model.decoder.embed_positions, teacher):
        frozen.requires_grad_(False)
    teacher.model.encoder = student.model.encoder


def optimizer_of(student: Any, *, learning_rate: float = 1e-4, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW on what is trained."""
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay)


def collate(
    rows: Sequence[Sequence[int]], features: torch.Tensor, *, start: int, pad: int, padding: Padding = "max_length"
) -> Batch:
    """Put token rows side by side as their collator does.

    Args:
        rows: whole decoder sequences, `<|startofprev|>` … `<|endoftext|>`.
        features: (B, mels, 3000).
        start: the id of `<|startoftranscript|>`.

    Returns:
        input_features; decoder_input_ids and labels, both int64 (B, T).
    """
    length = POSITIONS if padding == "max_length" else max(map(len, rows))
    tokens = torch.full((len(rows), length), pad)
    given = torch.zeros((len(rows), length), dtype=torch.bool)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
        given[index, : len(row)] = True
    labels = tokens[:, 1:].masked_fill(~given[:, 1:], IGNORED)
    # the first position after the shift cannot hold the start token of a row with previous text: 0 means "none"
    starts = (labels == start).long().argmax(dim=1)
    before = torch.where(starts > 0, starts + 1, starts)
    labels[torch.arange(labels.shape[1]) < before[:, None]] = IGNORED
    return {"input_features": features, "decoder_input_ids": tokens[:, :-1].contiguous(), "labels": labels}


def losses(
    student: Any, teacher: Any, batch: Batch, *, temperature: float = 2.0, kl_weight: float = 1.0, shown: bool = False
) -> Losses:
    """Run both models and return the loss and its parts.

    Args:
        shown: give the teacher the student's inputs. False, as theirs: it sees what its labels say.
    """
    heard = student(**batch)
    dtype = next(teacher.model.decoder.parameters()).dtype
    with torch.no_grad():
        encoded = BaseModelOutput(heard.encoder_last_hidden_state.to(dtype))
        inputs = {"decoder_input_ids": batch["decoder_input_ids"]} if shown else {}
        taught = teacher(encoder_outputs=encoded, labels=batch["labels"], **inputs)
    wanted = nn.functional.softmax(taught.logits / temperature, dim=-1)
    found = nn.functional.log_softmax(heard.logits / temperature, dim=-1)
    kl = _divergence(wanted, found, batch["labels"]) * temperature**2
    return Losses(CE_WEIGHT * heard.loss + kl_weight * kl, heard.loss, kl)


def _divergence(wanted: torch.Tensor, found: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    counted = (labels >= 0).unsqueeze(-1)
    each = nn.functional.kl_div(found, wanted, reduction="none") * counted
    return each.sum() / counted.sum()


def plain_step(
    student: Any,
    teacher: Any,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    accelerator: Any = None,
    temperature: float = 2.0,
    kl_weight: float = 1.0,
    clip: float = 1.0,
) -> Losses:
    """One optimiser step on one batch.

    Args:
        accelerator: an `accelerate.Accelerator` that has prepared models and optimiser; without one it runs as is.
    """
    student.train()
    teacher.eval()
    with accelerator.accumulate(student) if accelerator else nullcontext():
        found = losses(student, teacher, batch, temperature=temperature, kl_weight=kl_weight)
        trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
        if accelerator:
            accelerator.backward(found.loss)
            accelerator.clip_grad_norm_(trained, clip)
        else:
            found.loss.backward()
            nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        optimizer.zero_grad()
    return Losses(found.loss.detach(), found.ce.detach(), found.kl)
