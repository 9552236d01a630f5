"""The distillation loss, with gradients, without ever holding the logits of a whole batch.

loss = ce_weight · CE(label) + kl_weight · T² · KL(teacher ‖ student), both at each target, T only in the second
(docs/method.md, sections 1 and 4). The vocabulary has 51,865 tokens: one batch's logits are gigabytes, and a plain
implementation holds half a dozen tensors of that size. Here hidden states are taken a chunk of rows at a time; a
chunk's logits give its loss and its gradient at once, and are freed before the next chunk's are computed.

Shapes: N targets, R rows of one chunk, V tokens in the vocabulary (padded: `_cast_head`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from torch.autograd import Function
from torch.nn.functional import pad

MIB: Final = 2**20
FLOAT32: Final = 4  # bytes
# 51,865 is odd: tensor cores want rows that start at multiples of 16 bytes, and are twice as fast then
ROUND: Final = 64


@dataclass(frozen=True, slots=True)
class Terms:
    """The weights and the temperature of the loss."""

    ce_weight: float
    kl_weight: float
    temperature: float


def rows_that_fit(vocabulary: int, chunk_mib: int) -> int:
    """How many rows of float32 logits fit into `chunk_mib`; at least one."""
    return max(1, chunk_mib * MIB // (FLOAT32 * vocabulary))


def distillation_loss(
    student: torch.Tensor,
    student_head: torch.Tensor,
    teacher: torch.Tensor,
    teacher_head: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    terms: Terms,
    rows: int,
    compiled: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over N targets of the weighted loss, of CE and of T² · KL; only the first carries a gradient.

        loss, ce, kl = distillation_loss(hidden, head, teacher_hidden, teacher_head, targets, weights,
                                         terms=Terms(0.8, 1.0, 2.0), rows=rows_that_fit(len(head), 128))

    Args:
        student: hidden states (N, width); gets a gradient.
        student_head: output embeddings (V, width); gets a gradient.
        teacher, teacher_head: the same of the teacher, whose width may differ; no gradient.
        targets: token ids (N,); weights: (N,).
        rows: how many rows of logits are held at once.
        compiled: torch.compile the work on logits: a few passes over them instead of dozens.
    """
    apply: Any = _DistillationLoss.apply
    loss, ce, kl = apply(student, student_head, teacher, teacher_head, targets, weights, terms, rows, compiled)
    return loss, ce, kl


class _DistillationLoss(Function):
    """Computes gradients in the forward pass, where the logits are; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        student: torch.Tensor,
        student_head: torch.Tensor,
        teacher: torch.Tensor,
        teacher_head: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        terms: Terms,
        rows: int,
        compiled: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with_gradient = any(ctx.needs_input_grad[:2])
        exact = torch.promote_types(student_head.dtype, torch.float32)  # sums are at least in float32
        ce = torch.zeros((), dtype=exact, device=student.device)
        kl = torch.zeros_like(ce)
        student_grad = torch.empty_like(student) if with_gradient else None  # (N, width)
        head_grad = torch.zeros_like(student_head, dtype=exact) if with_gradient else None  # (V, width)
        # cast once: autocast would cast the heads anew for each chunk
        head_s, head_t = (_cast_head(head, like=student) for head in (student_head, teacher_head))  # (padded V, width)
        vocabulary = len(student_head)
        chunk_loss = _compiled_chunk_loss() if compiled else _chunk_loss
        for start in range(0, len(student), rows):
            part = slice(start, start + rows)
            logits_s = student[part].to(head_s.dtype) @ head_s.T  # (R, padded V)
            logits_t = teacher[part].to(head_t.dtype) @ head_t.T  # (R, padded V)
            chunk_ce, chunk_kl, logits_grad = chunk_loss(
                logits_s,
                logits_t,
                targets[part],
                weights[part].to(exact),
                terms,
                vocabulary=vocabulary,
                with_gradient=with_gradient,
            )
            del logits_s, logits_t
            ce += chunk_ce
            kl += chunk_kl
            if logits_grad is not None and student_grad is not None and head_grad is not None:
                student_grad[part] = logits_grad @ head_s  # (R, width)
                if head_grad.dtype == logits_grad.dtype:
                    head_grad.addmm_(logits_grad.T, student[part].to(logits_grad.dtype))  # no copy of (V, width)
                else:
                    head_grad += (logits_grad.T @ student[part].to(logits_grad.dtype))[:vocabulary]
        ctx.save_for_backward(student_grad, head_grad)
        ctx.head_dtype = student_head.dtype
        ctx.mark_non_differentiable(ce, kl)
        return terms.ce_weight * ce + terms.kl_weight * kl, ce, kl

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor, *_: Any) -> tuple[Any, ...]:
        student_grad, head_grad = ctx.saved_tensors
        # in place: torch keeps saved tensors until this returns, and a loss is never run backward twice here
        return (
            student_grad.mul_(scale),
            head_grad.mul_(scale).to(ctx.head_dtype),
            *(None for _ in range(7)),  # teacher, its head, targets, weights, terms, rows, compiled
        )


def _chunk_loss(
    logits_s: torch.Tensor,
    logits_t: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    terms: Terms,
    *,
    vocabulary: int,
    with_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """One chunk's sums of CE and T² · KL, and the gradient (R, padded V) of the weighted loss at the student's logits.

    Computes in the precision of the weights; logits beyond the vocabulary are padding, whose gradient is zero.
    d CE / d s = softmax(s) - onehot; d T² KL / d s = T (softmax(s / T) - softmax(t / T)).
    Logits are overwritten: three tensors of the chunk's size exist at most, beside them.
    """
    temperature = terms.temperature
    width, half = logits_s.shape[1], logits_s.dtype
    logits_s, logits_t = (logits[:, :vocabulary].to(weights.dtype) for logits in (logits_s, logits_t))  # (R, V) each
    log_q = torch.log_softmax(logits_t.div_(temperature), dim=-1)  # teacher at T
    log_p = torch.log_softmax(logits_s / temperature, dim=-1)  # student at T
    q = torch.exp(log_q, out=logits_t)
    divergence = (log_q.sub_(log_p)).mul_(q).sum(dim=-1)  # (R,): KL of each row
    log_s = torch.log_softmax(logits_s, dim=-1)  # student at 1
    picked = targets[:, None]  # (R, 1)
    ce = -(log_s.gather(1, picked)[:, 0] * weights).sum()
    kl = (divergence * weights).sum() * temperature**2
    if not with_gradient:
        return ce, kl, None
    gradient = log_p.exp_().sub_(q).mul_(terms.kl_weight * temperature)
    gradient.add_(log_s.exp_(), alpha=terms.ce_weight)
    gradient.scatter_add_(1, picked, torch.full_like(picked, -terms.ce_weight, dtype=gradient.dtype))
    logits_grad = gradient.mul_(weights[:, None]).to(half)
    return ce, kl, logits_grad if width == vocabulary else pad(logits_grad, (0, width - vocabulary))


@cache
def _compiled_chunk_loss() -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    return torch.compile(_chunk_loss)


def _cast_head(head: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
    """A head (V, width) in the precision of matrix products; in half precision padded to a multiple of 64 rows."""
    device = like.device.type
    if not torch.is_autocast_enabled(device):
        return head
    cast = head.new_empty((-(-len(head) // ROUND) * ROUND, head.shape[1]), dtype=torch.get_autocast_dtype(device))
    cast[: len(head)] = head
    cast[len(head) :] = 0
    return cast
