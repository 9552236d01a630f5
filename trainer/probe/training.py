"""The probe in torch, and the training of one fold's network.

Shapes: B examples, F frames of the encoder (20 ms each), U units.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from k2d.validators.probe.network import STRIDE, Layers
from trainer.probe.encodings import Encodings

CHANNELS: Final = 192  # docs/method.md, section 7
# 60 ms of encoder output in the first layer, 120 ms of audio with the second: the encoder has attended to all the rest
KERNEL: Final = 3
BATCH: Final = 16
PEAK_RATE: Final = 3e-3
WARM_UP: Final = 0.1  # of the steps
DROPOUT: Final = 0.2  # of whole channels of the encoder's output, and again of hidden ones: an hour of speech is little
WEIGHT_DECAY: Final = 0.01
CLIP: Final = 5.0
SLAB: Final = 16  # batches that are sorted by length together
_SEED_STEP: Final = 1009  # a prime, so that the folds of different seeds have seeds of their own


class ProbeNetwork(nn.Module):
    """Two convolutions: encoder output (B, width, F) → scores (B, U, ceil(F / 2))."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, CHANNELS, KERNEL, stride=STRIDE, padding=KERNEL // 2)
        self.second = nn.Conv1d(CHANNELS, units, KERNEL, padding=KERNEL // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropped = functional.dropout1d(x, DROPOUT, self.training)  # (B, width, F)
        hidden = functional.gelu(self.first(dropped), approximate="tanh")  # (B, CHANNELS, ceil(F / 2))
        scores: torch.Tensor = self.second(functional.dropout1d(hidden, DROPOUT, self.training))
        return scores

    def layers(self) -> Layers:
        """The weights in the form that the validator loads."""
        state = {name: tensor.detach().float().cpu().numpy() for name, tensor in self.state_dict().items()}
        return Layers(state["first.weight"], state["first.bias"], state["second.weight"], state["second.bias"])


@dataclass(frozen=True)
class TrainingSet:
    """All examples, by their index."""

    encodings: Encodings
    mean: torch.Tensor  # (width,)
    scale: torch.Tensor  # (width,): one over the standard deviation
    targets: Sequence[tuple[int, ...]]  # units
    frames: Sequence[int]  # of the encoder
    weights: Sequence[float]


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What is the same for all folds."""

    epochs: int
    seed: int
    device: str


def train_fold(
    data: TrainingSet,
    members: Sequence[int],
    options: FitOptions,
    *,
    fold: int,
    units: int,
    on_epoch: Callable[[int, float], None],
) -> ProbeNetwork:
    """Train one fold's network on its members; `on_epoch` is called with each epoch's number and mean loss.

    The same data, seed and device give the same weights: examples are drawn from a seeded generator, and the loss,
    which has no repeatable gradient on CUDA, is computed on the CPU.

        network = train_fold(data, [0, 1, 4], FitOptions(epochs=20, seed=0, device="cpu"), fold=0, units=60,
                             on_epoch=lambda epoch, loss: None)
    """
    torch.manual_seed(options.seed * _SEED_STEP + fold)  # initial weights and dropout
    draws = np.random.default_rng((options.seed, fold))
    network = ProbeNetwork(data.encodings.width, units).to(options.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    steps = options.epochs * math.ceil(len(members) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    network.train()
    for epoch in range(options.epochs):
        losses = []
        for indices in _batches(members, data.frames, draws):
            loss = _loss(network, data, indices, options.device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        on_epoch(epoch, sum(losses) / max(1, len(losses)))
    return network.eval()


@torch.inference_mode()
def held_out_loss(network: ProbeNetwork, data: TrainingSet, members: Sequence[int], device: str) -> float:
    """The CTC loss per unit on examples that the network was not trained on, weighted as in training."""
    total = weight = 0.0
    for start in range(0, len(members), BATCH):
        indices = members[start : start + BATCH]
        batch_weight = sum(data.weights[index] for index in indices)
        total += float(_loss(network, data, indices, device)) * batch_weight
        weight += batch_weight
    return total / weight if weight else math.nan


def _loss(network: ProbeNetwork, data: TrainingSet, indices: Sequence[int], device: str) -> torch.Tensor:
    """Weighted mean over examples of the CTC loss, each divided by the number of its units; a scalar."""
    encoded = torch.from_numpy(data.encodings.padded(indices)).to(device).float()  # (B, F, width)
    normal = (encoded - data.mean.to(device)) * data.scale.to(device)
    lengths = torch.tensor([data.frames[index] for index in indices])  # (B,)
    padding = torch.arange(normal.shape[1])[None, :, None] >= lengths[:, None, None]  # (B, F, 1)
    scores = network(normal.masked_fill(padding.to(device), 0.0).transpose(1, 2))  # (B, U, ceil(F / 2))
    log_probs = functional.log_softmax(scores.permute(2, 0, 1).float().cpu(), dim=-1)  # (ceil(F / 2), B, U)
    targets = [data.targets[index] for index in indices]
    sizes = torch.tensor([len(target) for target in targets])  # (B,)
    losses = functional.ctc_loss(
        log_probs,
        torch.tensor([unit for target in targets for unit in target]),
        torch.div(lengths + STRIDE - 1, STRIDE, rounding_mode="floor"),
        sizes,
        reduction="none",
        zero_infinity=True,
    )  # (B,)
    weights = torch.tensor([data.weights[index] for index in indices])
    return (losses / sizes * weights).sum() / weights.sum()


def _batches(members: Sequence[int], frames: Sequence[int], draws: np.random.Generator) -> Iterator[list[int]]:
    """Batches of similar lengths in random order: shuffled, sorted within slabs, the batches shuffled again."""
    order: npt.NDArray[np.intp] = draws.permutation(np.asarray(members))
    batches = []
    for start in range(0, len(order), BATCH * SLAB):
        slab = sorted(order[start : start + BATCH * SLAB].tolist(), key=lambda index: frames[index])
        batches += [slab[at : at + BATCH] for at in range(0, len(slab), BATCH)]
    for place in draws.permutation(len(batches)):
        yield batches[place]


def _rate(step: int, steps: int) -> float:
    """A share of the peak rate: linear warm-up, then half a cosine to 0."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
