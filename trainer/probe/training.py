"""The probe in torch, and one fold's training."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from k2d.validators.probe.network import STRIDE, Layers
from trainer.probe.encodings import Encodings

CHANNELS = 192  # method.md, section 7
KERNEL = 3  # 60 ms of encoder output in the first layer, 120 ms of audio with the second: the encoder knows the rest
BATCH = 16
PEAK_RATE = 3e-3
WARM_UP = 0.1  # of the steps
DROPOUT = 0.2  # of whole channels of the encoder's output, and again of hidden ones: an hour of speech is little
WEIGHT_DECAY = 0.01
CLIP = 5.0


class Network(nn.Module):
    """Two convolutions: encoder output (B, width, frames) → scores (B, units, ceil(frames / 2))."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, CHANNELS, KERNEL, stride=STRIDE, padding=KERNEL // 2)
        self.second = nn.Conv1d(CHANNELS, units, KERNEL, padding=KERNEL // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.gelu(self.first(functional.dropout1d(x, DROPOUT, self.training)), approximate="tanh")
        scores: torch.Tensor = self.second(functional.dropout1d(hidden, DROPOUT, self.training))
        return scores

    def layers(self) -> Layers:
        """The weights as the validator takes them."""
        state = {name: tensor.detach().float().cpu().numpy() for name, tensor in self.state_dict().items()}
        return Layers(state["first.weight"], state["first.bias"], state["second.weight"], state["second.bias"])


@dataclass(frozen=True)
class Data:
    """All examples, by position."""

    encodings: Encodings
    mean: torch.Tensor  # (width,)
    scale: torch.Tensor
    targets: Sequence[tuple[int, ...]]
    frames: Sequence[int]  # of the encoder
    weights: Sequence[float]


@dataclass(frozen=True, slots=True)
class How:
    epochs: int
    seed: int
    device: str


def train(
    data: Data, members: Sequence[int], how: How, *, fold: int, units: int, told: Callable[[int, float], None]
) -> Network:
    """Train one fold's network on its members; `told` hears each epoch's number and mean loss.

    The same data, seed and device give the same weights: examples are drawn from a seeded generator, and the loss,
    which has no repeatable gradient on CUDA, is computed on the CPU.
    """
    torch.manual_seed(how.seed * 1009 + fold)  # initial weights and dropout; any prime keeps the folds' seeds apart
    draws = np.random.default_rng((how.seed, fold))
    network = Network(data.encodings.width, units).to(how.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    steps = how.epochs * math.ceil(len(members) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    network.train()
    for epoch in range(how.epochs):
        losses = []
        for indices in _batches(members, data.frames, draws):
            loss = _loss(network, data, indices, how.device, weights=[data.weights[index] for index in indices])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        told(epoch, sum(losses) / max(1, len(losses)))
    return network.eval()


@torch.inference_mode()
def held_out_loss(network: Network, data: Data, members: Sequence[int], device: str) -> float:
    """The CTC loss a unit of examples the network has not seen, weighted as in training."""
    total = weight = 0.0
    for start in range(0, len(members), BATCH):
        indices = members[start : start + BATCH]
        trusted = [data.weights[index] for index in indices]
        total += float(_loss(network, data, indices, device, weights=trusted)) * sum(trusted)
        weight += sum(trusted)
    return total / weight if weight else math.nan


def _loss(
    network: Network, data: Data, indices: Sequence[int], device: str, *, weights: Sequence[float]
) -> torch.Tensor:
    """Weighted mean over examples of the CTC loss, each over the number of its units."""
    encoded = torch.from_numpy(data.encodings.padded(indices)).to(device).float()
    normal = (encoded - data.mean.to(device)) * data.scale.to(device)
    lengths = torch.tensor([data.frames[index] for index in indices])
    behind = torch.arange(normal.shape[1])[None, :, None] >= lengths[:, None, None]
    scores = network(normal.masked_fill(behind.to(device), 0.0).transpose(1, 2))
    log_probs = functional.log_softmax(scores.permute(2, 0, 1).float().cpu(), dim=-1)
    targets = [data.targets[index] for index in indices]
    sizes = torch.tensor([len(target) for target in targets])
    each = functional.ctc_loss(
        log_probs,
        torch.tensor([unit for target in targets for unit in target]),
        torch.div(lengths + STRIDE - 1, STRIDE, rounding_mode="floor"),
        sizes,
        reduction="none",
        zero_infinity=True,
    )
    trusted = torch.tensor(weights)
    return (each / sizes * trusted).sum() / trusted.sum()


def _batches(members: Sequence[int], frames: Sequence[int], draws: np.random.Generator) -> Iterator[list[int]]:
    """Batches of about equal lengths, in random order: drawn, sorted within slabs of 16 batches, and drawn again."""
    order: npt.NDArray[np.intp] = draws.permutation(np.asarray(members))
    batches = []
    for start in range(0, len(order), BATCH * 16):
        slab = sorted(order[start : start + BATCH * 16].tolist(), key=lambda index: frames[index])
        batches += [slab[at : at + BATCH] for at in range(0, len(slab), BATCH)]
    for place in draws.permutation(len(batches)):
        yield batches[place]


def _rate(step: int, steps: int) -> float:
    """A share of the peak rate: up in a line, down along a half cosine to nothing."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
