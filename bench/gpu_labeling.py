"""How fast an engine labels and validates on this device, in times real time: many recordings, each one in sequence.

With a shape (`large-v2`), a model of random weights is made, and each window is decoded to a fixed number of tokens:
speed depends on shapes and token counts, not on what the weights know. Each recording then goes forward by whole
windows, one after another, as Whisper's algorithm must; batches form across recordings. With a model's name, its real
weights label real recordings by the walk of k2d (`k2d.inference.longform`).

    python bench/gpu_labeling.py --shape large-v2 --recordings 96 --minutes 5 --beams 1 5 \\
        --engines ctranslate2:float16 ctranslate2:int8_float16 transformers:float16 transformers:bfloat16
    python bench/gpu_labeling.py --model packaged:whisper-base --validate --recordings 64
    python bench/gpu_labeling.py --shape tiny --recordings 2 --minutes 1 --tokens 8   # on a CPU, in a minute

Prints a line for each engine, beam size and batch size; the last line is JSON.
"""

import argparse
import asyncio
import json
import platform
import resource
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from k2d.inference.batcher import MicroBatcher
from k2d.inference.longform import transcribe
from k2d.schema import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES, DecodeOptions, LongformOptions, Samples, Window
from k2d.settings import load
from k2d.whisper import prompts
from k2d.whisper.engine import Engine
from k2d.whisper.load import open_engine
from k2d.whisper.resolve import resolve

DATA = Path(__file__).parents[2] / "shared" / "data" / "public"
# width, layers and heads of encoder and decoder (openai/whisper, model cards)
SHAPES = {"tiny": (64, 2, 2), "base": (512, 6, 8), "small": (768, 12, 12), "large-v2": (1280, 32, 20)}
TOKENIZER = "packaged:whisper-base"  # large-v2 has the same vocabulary


@dataclass(frozen=True, slots=True)
class Speed:
    """One measurement."""

    engine: str
    compute_type: str
    act: str
    beams: int
    batch: int
    audio_s: float
    wall_s: float
    windows: int
    tokens: int
    gpu_mb: float | None

    @property
    def real_time(self) -> float:
        """Seconds of audio a second."""
        return self.audio_s / self.wall_s

    def line(self) -> str:
        memory = f"{self.gpu_mb:8.0f}" if self.gpu_mb is not None else "       –"
        tokens = self.tokens / self.wall_s
        return (
            f"{self.engine:13}{self.compute_type:14}{self.act:10}{self.beams:6}{self.batch:6}{self.real_time:13.1f}"
            f"{tokens:10.0f}{memory}"
        )


def random_model(shape: str, folder: Path) -> Path:
    """Write a model of random weights in half precision, with the tokenizer of a real one."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    real = resolve(TOKENIZER, engine="transformers", cache=load().cache, allow_downloads=True).path
    width, layers, heads = SHAPES[shape]
    both = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()}
    document = json.loads((real / "config.json").read_text())
    config = WhisperConfig(**document | sides | {"d_model": width, "num_hidden_layers": layers, "dtype": "float16"})
    torch.manual_seed(0)
    WhisperForConditionalGeneration(config).half().save_pretrained(folder)
    for name in ("tokenizer.json", "preprocessor_config.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(real / name, folder / name)
    return folder


def with_fixed_tokens(engine: Any, tokens: int) -> None:
    """Make an engine decode every window to exactly this many tokens."""
    vocabulary = engine._vocabulary
    vocabulary.suppressed = (*vocabulary.suppressed, vocabulary.eot)
    prompts.room = lambda prompt, options: min(tokens, prompts.CONTEXT - len(prompt))


def recordings(count: int, seconds: float, *, real: bool) -> list[Samples]:
    """Long recordings of the measuring data, again and again, or noise."""
    length = round(seconds * SAMPLE_RATE_HZ)
    if not real:
        random = np.random.default_rng(0)
        return [random.normal(0, 2000, length).astype(np.int16) for _ in range(count)]
    rows = [json.loads(line) for line in (DATA / "manifest.jsonl").read_text("utf-8").splitlines()]
    speech = [soundfile.read(DATA / row["audio"], dtype="int16")[0] for row in rows if row["kind"] == "longform"]
    joined = np.concatenate(speech)
    repeated = np.tile(joined, -(-count * length // len(joined)))
    return [repeated[number * length : (number + 1) * length] for number in range(count)]


class _Reader:
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def read(self, start: int, stop: int) -> Samples:
        return self._samples[start:stop]


async def label(engine: Engine, audio: list[Samples], options: DecodeOptions, *, batch: int, real: bool) -> int:
    """Label all recordings at once; returns the number of tokens."""
    batcher = MicroBatcher(engine, batch_size=batch)

    async def one(samples: Samples) -> int:
        if real:
            reader, own = _Reader(samples), LongformOptions(decode=options)
            return sum(
                [len(segment.tokens) async for segment in transcribe(reader, batcher, own, total_samples=len(samples))]
            )
        count = 0
        for start in range(0, len(samples), WINDOW_SAMPLES):  # in sequence: the next depends on this one
            result = await batcher.transcribe(Window(samples[start : start + WINDOW_SAMPLES]), options)
            count += len(result.tokens)
        return count

    return sum(await asyncio.gather(*map(one, audio)))


async def validate(engine: Engine, audio: list[Samples], options: DecodeOptions, *, batch: int) -> int:
    """The hypothesis and a text's forced score for each window; returns the number of tokens."""
    batcher = MicroBatcher(engine, batch_size=batch)
    limit = asyncio.Semaphore(2 * batch)

    async def one(window: Window) -> int:
        async with limit:
            result = await batcher.transcribe(window, options)
            score = await batcher.score(window, result.text or "好", options)
            return len(result.tokens) + len(score.tokens)

    windows = [Window(own[at : at + WINDOW_SAMPLES]) for own in audio for at in range(0, len(own), WINDOW_SAMPLES)]
    return sum(await asyncio.gather(*map(one, windows)))


def gpu_mb() -> float | None:
    """Memory of the GPU that is in use, by all processes; None without one."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e6


def measure(reference: str, engine_name: str, asked: argparse.Namespace, audio: list[Samples]) -> list[Speed]:
    """All measurements of one engine in one precision."""
    name, _, compute_type = engine_name.partition(":")
    settings = load()
    engine = open_engine(
        reference,
        engine=name,
        device=asked.device,
        compute_type=compute_type or "auto",
        threads=0,
        cache=Path(asked.cache) if asked.shape else settings.cache,
        allow_downloads=True,
    )
    real = asked.shape is None
    if not real:
        with_fixed_tokens(engine, asked.tokens)
    speeds = []
    acts = ["label", *(["validate"] if asked.validate else [])]
    for act in acts:
        for beams in asked.beams:
            options = DecodeOptions(temperatures=(0.0,) if not real else DecodeOptions().temperatures, beam_size=beams)
            options = replace(options, no_speech_threshold=None)
            for batch in asked.batch_sizes:
                engine.transcribe([Window(own[:WINDOW_SAMPLES]) for own in audio[:batch]], options)  # warm up
                started = time.perf_counter()
                if act == "label":
                    tokens = asyncio.run(label(engine, audio, options, batch=batch, real=real))
                else:
                    tokens = asyncio.run(validate(engine, audio, options, batch=batch))
                wall_s = time.perf_counter() - started
                seconds = sum(len(own) for own in audio) / SAMPLE_RATE_HZ
                windows = round(seconds / WINDOW_S)
                kind = engine.model.compute_type
                speed = Speed(name, kind, act, beams, batch, seconds, wall_s, windows, tokens, gpu_mb())
                print(speed.line(), flush=True)
                speeds.append(speed)
    engine.close()
    return speeds


def device() -> str:
    """The device in words."""
    try:
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    except ImportError:
        pass
    return f"CPU, {platform.machine()}"


def main(arguments: list[str] | None = None) -> list[Speed]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--shape", choices=SHAPES, help="random weights of this shape")
    what.add_argument("--model", help="real weights, by a name that K2D_TEACHER takes")
    parser.add_argument("--engines", nargs="+", default=["ctranslate2", "transformers"], help="NAME or NAME:PRECISION")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--recordings", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=5.0, help="of each recording")
    parser.add_argument("--beams", nargs="+", type=int, default=[1])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[16])
    parser.add_argument("--tokens", type=int, default=150, help="of each window, with a shape")
    parser.add_argument("--validate", action="store_true", help="also hypotheses with forced scores")
    asked = parser.parse_args(arguments)
    audio = recordings(asked.recordings, 60 * asked.minutes, real=asked.shape is None)
    print(f"{device()}; {asked.recordings} recordings of {asked.minutes:g} minutes, {asked.shape or asked.model}")
    print(
        f"{'engine':13}{'precision':14}{'act':10}{'beams':>6}{'batch':>6}{'× real time':>13}{'tokens/s':>10}{'MB':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        asked.cache = folder
        reference = str(random_model(asked.shape, Path(folder) / asked.shape)) if asked.shape else asked.model
        speeds = [speed for engine in asked.engines for speed in measure(reference, engine, asked, audio)]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = [asdict(speed) | {"real_time": speed.real_time} for speed in speeds]
    print(json.dumps({"device": device(), "host_mb": peak_mb, "rows": rows}))
    return speeds


if __name__ == "__main__":
    main()
