"""One way through one distillation step, measured in a process of its own; `distillation.py` starts it and reads JSON.

`plain-448` and `plain-longest` are distil-whisper's step (plain_distillation.py) with its padding and without,
`ours` is the trainer's. `agree` computes both losses on equal weights, rows and targets. `generate` times decoding.
"""

import argparse
import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import plain_distillation as plain
import torch
from accelerate import Accelerator
from distillation_rows import made_up_rows, sample_rows
from transformers import WhisperConfig, WhisperForConditionalGeneration

from k2d.settings import load
from k2d.whisper.resolve import resolve
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import IGNORED, PreparedRow
from trainer.model.distiller import Distiller
from trainer.model.flops import chunk_flops, peak_of
from trainer.model.setup import adamw_kernels
from trainer.model.student import cut_student, load_teacher
from trainer.options import Recipe

# encoder and decoder layers, width, heads: large-v2 is the paper's teacher; tiny only shows that this runs
SHAPES = {"large-v2": (32, 1280, 20), "tiny": (4, 384, 6)}
WHISPER_IDS = {"sot": 50258, "eot": 50257, "transcribe": 50359, "sot_lm": 50360, "timestamp_begin": 50364}
LANGUAGES = {"en": 50259, "zh": 50260}
MIB = 2**20
GENERATIONS = 3  # timed; their median counts


@dataclass(frozen=True, slots=True)
class Setting:
    """Models and rows, the same for every way."""

    teacher: Any
    student: Any
    vocabulary: Any  # Vocabulary, or its ids where no tokenizer is at hand
    rows: list[PreparedRow]
    recipe: Recipe
    device: torch.device


Tensors = dict[str, torch.Tensor]
Step = Callable[[Tensors], tuple[float, float, float]]  # a batch on the CPU; loss, CE and KL per target


def setting(options: argparse.Namespace) -> Setting:
    """Load or make up both models, and the rows."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = Recipe(
        batch=options.batch, micro_batch=options.batch, precision=options.precision, compile=options.compile
    )
    vocabulary: Any
    if options.random_weights:
        teacher = _random(options.random_weights, device)
        vocabulary = SimpleNamespace(**WHISPER_IDS, languages=LANGUAGES)
        rows = made_up_rows(vocabulary, mels=teacher.config.num_mel_bins, count=options.batch)
    else:
        found = load()
        resolved = resolve(
            options.model, engine="transformers", cache=found.cache, allow_downloads=found.allow_downloads
        )
        teacher = load_teacher(resolved.path)
        vocabulary = Vocabulary(resolved.path / "tokenizer.json")
        rows = sample_rows(vocabulary, mels=teacher.config.num_mel_bins, longest_s=options.row_s)
    student = cut_student(teacher, decoder_layers=2)
    for model in (teacher, student):  # the mixed prompt, for the step that does not know of it
        weight = model.model.decoder.embed_tokens.weight.data
        weight[vocabulary.sot_lm] = weight[[vocabulary.languages[code] for code in ("zh", "en")]].mean(dim=0)
    return Setting(teacher, student, vocabulary, rows, recipe, device)


def _random(shape: str, device: torch.device) -> Any:
    layers, width, heads = SHAPES[shape]
    parts = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
    sizes = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in parts.items()}
    config = WhisperConfig(
        vocab_size=51865, d_model=width, pad_token_id=50257, bos_token_id=50257, eos_token_id=50257,
        decoder_start_token_id=50258, **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    with device:  # a billion random numbers take a CPU a minute
        model: Any = WhisperForConditionalGeneration(config)
    return model.eval().to("cpu")  # where the trainer has them before it places them


def plain_way(given: Setting, padding: plain.Padding) -> Step:
    """distil-whisper's step."""
    half = given.recipe.precision == "bf16"
    plain.share(given.teacher, given.student)
    if half:  # theirs is loaded in half precision; the encoder is the student's and stays
        given.teacher.model.decoder.bfloat16()
    accelerator = Accelerator(mixed_precision="bf16" if half else "no", cpu=given.device.type == "cpu")
    student, teacher, optimizer = accelerator.prepare(
        given.student, given.teacher, plain.optimizer_of(given.student, learning_rate=given.recipe.learning_rate)
    )

    def step(batch: Tensors) -> tuple[float, float, float]:
        batch = {name: tensor.to(given.device, non_blocking=True) for name, tensor in batch.items()}
        found = plain.plain_step(student, teacher, optimizer, batch, accelerator=accelerator)
        return found.loss.item(), found.ce.item(), found.kl.item()

    return step


def _plain_batch(given: Setting, rows: list[PreparedRow], padding: plain.Padding) -> plain.Batch:
    features = torch.from_numpy(np.stack([row.features for row in rows]))
    tokens = [row.label.tokens for row in rows]
    return plain.collate(tokens, features, start=given.vocabulary.sot, pad=given.vocabulary.eot, padding=padding)


def our_way(given: Setting) -> Step:
    """The trainer's step."""
    recipe = given.recipe
    accelerator = Accelerator(
        mixed_precision="bf16" if recipe.precision == "bf16" else "no", cpu=given.device.type == "cpu"
    )
    distiller = Distiller(given.teacher, given.student, recipe, given.vocabulary)
    trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        **adamw_kernels(given.device),
    )
    half = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    distiller.place(given.device, dtype=half, compiled=recipe.compile)
    model, optimizer = accelerator.prepare(distiller, optimizer)
    model.train()

    def step(batch: Tensors) -> tuple[float, float, float]:
        count = int((batch["targets"] != IGNORED).sum())
        sent = {name: batch[name].to(given.device, non_blocking=True) for name in ("features", "inputs")}
        parts = model(**batch | sent, normaliser=count)
        accelerator.backward(parts.loss)
        accelerator.clip_grad_norm_(trained, recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        return parts.loss.item(), parts.ce.item() / count, parts.kl.item() / count

    return step


def _our_batch(given: Setting, rows: list[PreparedRow]) -> Tensors:
    """Features, inputs, targets and weights: as long as the longest row, the prompt not learned."""
    batch = _plain_batch(given, rows, "longest")
    targets = batch["labels"].clone()
    for index, row in enumerate(rows):
        targets[index, : row.label.prompt - 1] = IGNORED
    return {
        "features": batch["input_features"],
        "inputs": batch["decoder_input_ids"],
        "targets": targets,
        "weights": torch.ones(len(rows)),
    }


def agreement(given: Setting, rows: list[PreparedRow]) -> dict[str, Any]:
    """Both losses on the same weights, rows and targets; no step is made."""
    batch = {name: tensor.to(given.device) for name, tensor in _our_batch(given, rows).items()}
    features, inputs, targets, weights = batch.values()
    plain.share(given.teacher, given.student)
    given.student.to(given.device)
    given.teacher.to(given.device)
    same = {"input_features": features, "decoder_input_ids": inputs, "labels": targets}
    with torch.no_grad():
        theirs = plain.losses(given.student, given.teacher, same, shown=True)
    distiller = Distiller(given.teacher, given.student, given.recipe, given.vocabulary)
    count = int((targets != IGNORED).sum())
    distiller.place(given.device)
    with torch.no_grad():
        ours = distiller(features, inputs, targets, weights, normaliser=count)
    return {
        "targets": count,
        "plain": [theirs.loss.item(), theirs.ce.item(), theirs.kl.item()],
        "ours": [ours.loss.item(), ours.ce.item() / count, ours.kl.item() / count],
    }


def timed(
    given: Setting, step: Step, collate: Callable[[list[PreparedRow]], Tensors], options: argparse.Namespace
) -> dict[str, Any]:
    """Steps after one that warms up: seconds of each, and the most memory while they ran.

    Collating is not counted, as loaders do it beside the step; the way to the device is.
    """
    cuda = given.device.type == "cuda"
    batches = map(collate, _batches(given.rows, options.batch))
    gc.collect()
    loaded = _reset_peak(given.device)
    first = step(_pinned(next(batches)))  # allocates gradients and moments, chooses kernels
    if cuda:
        step(_pinned(next(batches)))  # kernels for tensors that are there already
    seconds, last = [], first
    for batch in map(_pinned, islice(batches, options.steps)):
        _wait(given.device)
        started = time.perf_counter()
        last = step(batch)
        _wait(given.device)  # reading a loss does not wait for the optimiser
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": seconds,
        "first": first,
        "last": last,
        "loaded_mib": loaded / MIB,
        "peak_mib": _peak(given.device) / MIB,
        "positions": max(len(row.label.tokens) for row in given.rows) - 1,
        "audio_s": sum(row.seconds for row in given.rows) / len(given.rows),
        "flops": chunk_flops(given.teacher.config, given.student.config, tokens=_mean_tokens(given.rows)).total,
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
        "flops_peak": peak_of(torch.cuda.get_device_name()) if cuda else None,
    }


def _mean_tokens(rows: list[PreparedRow]) -> int:
    return round(sum(len(row.label.tokens) - 1 for row in rows) / len(rows))


def _batches(rows: list[PreparedRow], size: int) -> Iterator[list[PreparedRow]]:
    endless = cycle(rows)
    while True:
        yield list(islice(endless, size))


def _pinned(batch: Tensors) -> Tensors:
    """A batch as a loader hands it over for a GPU."""
    return {name: tensor.pin_memory() if torch.cuda.is_available() else tensor for name, tensor in batch.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _reset_peak(device: torch.device) -> int:
    """Forget what loading took; returns what is in memory now, in bytes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident (proc(5))
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> int:
    """A line of this process's status, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


@torch.inference_mode()
def generation(given: Setting, options: argparse.Namespace) -> dict[str, float]:
    """Seconds in which teacher and student encode a batch and write the same number of tokens, greedily."""
    dtype = torch.bfloat16 if given.recipe.precision == "bf16" else torch.float32
    rows = next(_batches(given.rows, options.batch))
    features = torch.from_numpy(np.stack([row.features for row in rows])).to(given.device, dtype)
    seconds = {}
    for name, model in (("teacher", given.teacher), ("student", given.student)):
        model.to(given.device, dtype).eval()
        _generate(model, features, tokens=4, start=given.vocabulary.sot)
        spent = []
        for _ in range(GENERATIONS):
            started = time.perf_counter()
            _generate(model, features, tokens=options.tokens, start=given.vocabulary.sot)
            spent.append(time.perf_counter() - started)
        seconds[name] = median(spent)
        model.to("cpu")
    return seconds


def _generate(model: Any, features: torch.Tensor, *, tokens: int, start: int) -> None:
    encoded = model.model.encoder(features)
    inputs = torch.full((len(features), 1), start, device=features.device)
    cache = None
    for _ in range(tokens):
        found = model(encoder_outputs=encoded, decoder_input_ids=inputs, past_key_values=cache, use_cache=True)
        inputs, cache = found.logits[:, -1:].argmax(dim=-1), found.past_key_values
    inputs.cpu()  # waits for the device


def main(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one way."""
    if options.threads:
        torch.set_num_threads(options.threads)
    given = setting(options)
    if options.way == "agree":
        return agreement(given, next(_batches(given.rows, options.batch)))
    if options.way == "generate":
        return generation(given, options)
    if options.way == "ours":
        return timed(given, our_way(given), partial(_our_batch, given), options)
    padding = WAYS[options.way]
    return timed(given, plain_way(given, padding), lambda rows: _plain_batch(given, rows, padding), options)


WAYS: dict[str, plain.Padding] = {"plain-448": "max_length", "plain-longest": "longest"}

if __name__ == "__main__":
    print(json.dumps(main(argparse.Namespace(**json.loads(sys.argv[1])))))
