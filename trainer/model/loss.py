"""The distillation loss, with gradients, without ever holding logits of a whole batch.

loss = ce_weight · CE(label) + kl_weight · T² · KL(teacher ‖ student), both at each target, T only in the second
(method.md, sections 1 and 4). The vocabulary has 51,865 tokens: one batch's logits are gigabytes, and a plain
implementation holds half a dozen tensors of that size. Here rows of hidden states are taken a chunk at a time;
a chunk's logits give its loss and its gradient at once, and are gone before the next chunk's are made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.autograd import Function
from torch.nn.functional import pad

MIB = 2**20
ROUND = 64  # 51,865 is odd: tensor cores want rows that start at multiples of 16 bytes, and are twice as fast then


@dataclass(frozen=True, slots=True)
class Terms:
    """What the loss is made of."""

    ce_weight: float
    kl_weight: float
    temperature: float


def chunk_rows(vocabulary: int, chunk_mib: int) -> int:
    """How many rows of float32 logits fit into `chunk_mib`."""
    return max(1, chunk_mib * MIB // (4 * vocabulary))


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

    Args:
        student: hidden states, shape (N, width); gets a gradient.
        student_head: output embeddings, shape (vocabulary, width); gets a gradient.
        teacher, teacher_head: the same of the teacher, whose width may differ; no gradient.
        targets: token ids, shape (N,); weights: shape (N,).
        rows: of logits held at once.
        compiled: torch.compile what happens to logits: a few passes over them instead of dozens.
    """
    apply: Any = _Loss.apply
    loss, ce, kl = apply(student, student_head, teacher, teacher_head, targets, weights, terms, rows, compiled)
    return loss, ce, kl


class _Loss(Function):
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
        wanted = any(ctx.needs_input_grad[:2])
        exact = torch.promote_types(student_head.dtype, torch.float32)
        ce = torch.zeros((), dtype=exact, device=student.device)
        kl = torch.zeros_like(ce)
        to_student = torch.empty_like(student) if wanted else None
        to_head = torch.zeros_like(student_head, dtype=exact) if wanted else None
        # under autocast the heads would be cast anew for each chunk
        head_s, head_t = (_cast(head, like=student) for head in (student_head, teacher_head))
        vocabulary = len(student_head)
        chunk = _compiled_chunk() if compiled else _chunk
        for start in range(0, len(student), rows):
            part = slice(start, start + rows)
            logits_s = student[part].to(head_s.dtype) @ head_s.T
            logits_t = teacher[part].to(head_t.dtype) @ head_t.T
            chunk_ce, chunk_kl, small = chunk(
                logits_s, logits_t, targets[part], weights[part].to(exact), terms, vocabulary=vocabulary, wanted=wanted
            )
            del logits_s, logits_t
            ce += chunk_ce
            kl += chunk_kl
            if small is not None and to_student is not None and to_head is not None:
                to_student[part] = small @ head_s
                if to_head.dtype == small.dtype:
                    to_head.addmm_(small.T, student[part].to(small.dtype))
                else:
                    to_head += (small.T @ student[part].to(small.dtype))[:vocabulary]
        ctx.save_for_backward(to_student, to_head)
        ctx.head_dtype = student_head.dtype
        ctx.mark_non_differentiable(ce, kl)
        return terms.ce_weight * ce + terms.kl_weight * kl, ce, kl

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor, *_: Any) -> tuple[Any, ...]:
        to_student, to_head = ctx.saved_tensors
        # in place: torch keeps saved tensors until this returns, and nobody runs a loss backward twice
        return (
            to_student.mul_(scale),
            to_head.mul_(scale).to(ctx.head_dtype),
            *(None for _ in range(7)),
        )


def _chunk(
    logits_s: torch.Tensor,
    logits_t: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    terms: Terms,
    *,
    vocabulary: int,
    wanted: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """One chunk's sums of CE and T² · KL, and the gradient of the weighted loss at the student's logits.

    Computes in the precision of the weights; logits beyond the vocabulary are padding, and the gradient has it too.
    d CE / d s = softmax(s) - onehot; d T² KL / d s = T (softmax(s / T) - softmax(t / T)).
    Logits are overwritten: three tensors of the chunk's size are alive at most, beside them.
    """
    temperature = terms.temperature
    width, half = logits_s.shape[1], logits_s.dtype
    logits_s, logits_t = (logits[:, :vocabulary].to(weights.dtype) for logits in (logits_s, logits_t))
    log_q = torch.log_softmax(logits_t.div_(temperature), dim=-1)  # teacher at T
    log_p = torch.log_softmax(logits_s / temperature, dim=-1)  # student at T
    q = torch.exp(log_q, out=logits_t)
    divergence = (log_q.sub_(log_p)).mul_(q).sum(dim=-1)  # KL of each row
    log_s = torch.log_softmax(logits_s, dim=-1)
    picked = targets[:, None]
    ce = -(log_s.gather(1, picked)[:, 0] * weights).sum()
    kl = (divergence * weights).sum() * temperature**2
    if not wanted:
        return ce, kl, None
    gradient = log_p.exp_().sub_(q).mul_(terms.kl_weight * temperature)
    gradient.add_(log_s.exp_(), alpha=terms.ce_weight)
    gradient.scatter_add_(1, picked, torch.full_like(picked, -terms.ce_weight, dtype=gradient.dtype))
    small = gradient.mul_(weights[:, None]).to(half)
    return ce, kl, small if width == vocabulary else pad(small, (0, width - vocabulary))


@cache
def _compiled_chunk() -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    return torch.compile(_chunk)


def _cast(head: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
    """The head in the precision matrices are multiplied in; in half precision with rows of zeros to a round number."""
    device = like.device.type
    if not torch.is_autocast_enabled(device):
        return head
    cast = head.new_empty((-(-len(head) // ROUND) * ROUND, head.shape[1]), dtype=torch.get_autocast_dtype(device))
    cast[: len(head)] = head
    cast[len(head) :] = 0
    return cast
