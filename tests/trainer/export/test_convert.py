"""`k2d convert`: every format of a small student transcribes as the student does, in the tool the format is for."""

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from places import ROOT
from servers import Server

pytest.importorskip("torch", reason="needs the torch extra")

import torch
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
from weights import base, cache

from k2d.errors import ModelError
from k2d.inference.batcher import MicroBatcher
from k2d.inference.golden import clips
from k2d.inference.longform import transcribe
from k2d.schema import LongformOptions, join_text
from k2d.whisper.load import open_engine
from trainer.errors import ExportDrift
from trainer.export import decoders, gate
from trainer.export.exporter import convert
from trainer.export.formats import FORMATS
from trainer.export.ggml import write_ggml
from trainer.export.record import Export
from trainer.export.source import PROVENANCE, find_source
from trainer.model.student import save_student

pytestmark = [pytest.mark.integration, pytest.mark.torch]
GOLDEN = "english.flac"
Converted = Callable[..., Export]


@pytest.fixture(scope="module", autouse=True)
def quick_gate() -> Iterator[None]:
    """A few tokens a clip, since random weights write on to the limit; one thread; each student is transcribed once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    open_student, known = gate.open_student, dict[Path, list[decoders.ToolDecoder]]()

    def open_once(folder: Path, cache: Path) -> list[decoders.ToolDecoder]:
        if folder not in known:
            known[folder] = [decoders.ToolDecoder(d.tool, recorded(d), d.mode) for d in open_student(folder, cache)]
        return known[folder]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoders, "MAX_TOKENS", 12)
        patch.setattr(gate, "open_student", open_once)
        yield
    torch.set_num_threads(before)


def recorded(decoder: decoders.ToolDecoder) -> decoders.TranscribeClip:
    """A decoder's texts of the golden clips, to be read when it is closed."""
    texts = {
        len(clip.samples): decoder.transcribe(clip.samples, decoder.mode.language(clip.language)) for clip in clips()
    }
    return lambda samples, _: texts[len(samples)]


def student(**shape: Any) -> Any:
    """Whisper's vocabulary in a model of two small layers, its weights random and wide, so that tokens differ."""
    sizes = {
        "d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "num_hidden_layers": 2, "encoder_ffn_dim": 512,
        "decoder_ffn_dim": 512, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    }  # fmt: skip
    real = base("transformers").path
    known = json.loads((real / "config.json").read_text())
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig(**{**known, **sizes, "dtype": "float32", **shape}))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4.0)
    model.generation_config = GenerationConfig.from_pretrained(real)
    model.generation_config.alignment_heads = [[1, 0], [5, 1]]  # layer 5 is not there
    return model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a last student."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    save_student(student(), folder / "student", tokenizer_from=base("transformers").path)
    (folder / "run.json").write_text(json.dumps({"steps_done": 3, "finished": True}))
    (folder / "recipe.json").write_text(json.dumps({"seed": 7}))
    return folder


@pytest.fixture(scope="module")
def converted(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Exports, each made once."""
    made: dict[tuple[str, str | None], Export] = {}

    def make(format: str, precision: str | None = None, **options: Any) -> Export:
        if (format, precision) not in made:
            out = tmp_path_factory.mktemp("exports") / format
            how = {"format": format, "precision": precision, "cache": cache(), **options}
            made[format, precision] = convert(str(run), out, **how)
        return made[format, precision]

    return make


@pytest.mark.parametrize(
    ("format", "packages", "tools"),
    [
        ("transformers", [], ["k2d, transformers", "k2d, transformers", "transformers"]),
        ("ctranslate2", ["ctranslate2", "faster_whisper"], ["k2d, ctranslate2", "k2d, ctranslate2", "faster-whisper"]),
        ("onnx", ["onnx", "onnxscript", "onnxruntime"], ["onnxruntime"]),
        ("ggml", ["pywhispercpp"], ["whisper.cpp"]),
    ],
)
def test_each_format_transcribes_the_same(
    converted: Converted, format: str, packages: list[str], tools: list[str]
) -> None:
    for package in packages:
        pytest.importorskip(package)
    export = converted(format)
    assert [check.tool for check in export.checks] == tools
    assert all(check.same == check.clips == len(clips()) for check in export.checks)
    assert len({row.student for check in export.checks for row in check.rows}) > 1 or format in ("onnx", "ggml")
    assert all(row.student for check in export.checks for row in check.rows)
    provenance = json.loads((export.folder / PROVENANCE).read_text())
    assert provenance["run"]["steps_done"] == 3
    assert provenance["source"]["which"] == "last"
    assert "3 of 3" in (export.folder / "README.md").read_text()


def test_8_bits_are_smaller_and_their_drift_is_recorded(converted: Converted) -> None:
    pytest.importorskip("ctranslate2")
    export = converted("ctranslate2", "int8", max_drift=100.0)  # random weights: any text may come of rounding
    assert export.bytes < 0.7 * converted("ctranslate2").bytes
    assert json.loads((export.folder / PROVENANCE).read_text())["checks"][0]["drift"] == export.checks[0].drift


def test_transformers_alone_transcribes_without_a_hub(converted: Converted, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import WhisperProcessor, pipeline

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = str(converted("transformers").folder)
    processor: Any = WhisperProcessor.from_pretrained(folder)
    assert processor.tokenizer.encode(" the", add_special_tokens=False) == [264]
    recognise: Any = pipeline("automatic-speech-recognition", folder)
    speech = clips()[0].samples / np.float32(32768)  # 16 kHz, as the pipeline takes an array to be
    text = recognise(speech, generate_kwargs={"max_new_tokens": 8, "language": "zh"})["text"]
    assert text.strip()
    # without a language, the prompt it was trained with
    assert recognise(speech, generate_kwargs={"max_new_tokens": 8})["text"] == text


def test_faster_whisper_finds_words_with_heads_that_exist(converted: Converted) -> None:
    faster_whisper = pytest.importorskip("faster_whisper")
    folder = converted("ctranslate2").folder
    assert json.loads((folder / "config.json").read_text())["alignment_heads"] == [[1, 0]]
    model = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="float32", local_files_only=True)
    segments, _ = model.transcribe(
        clips()[0].samples.astype(np.float32) / 32768,
        language="zh",
        word_timestamps=True,
        temperature=0.0,
        max_new_tokens=24,
    )
    words = [word for segment in segments for word in segment.words]
    assert words
    assert all(0 <= word.start <= word.end for word in words)


@pytest.mark.parametrize("format", ["ctranslate2", pytest.param("transformers", marks=pytest.mark.nightly)])
def test_an_export_serves(format: str, tmp_path: Path) -> None:
    """The OpenAI endpoint gives the text that the model gives in this process; real weights, as random ones loop."""
    pytest.importorskip("ctranslate2")
    folder = tmp_path / "export"
    folder.mkdir()
    write, _ = FORMATS[format].parts()
    write(base("transformers").path, folder, "float16")
    settings = {"engine": format, "compute_type": "float32", "threads": 1}
    engine = open_engine(str(folder), device="cpu", cache=tmp_path / "cache", allow_downloads=False, **settings)
    (clip,) = (clip for clip in clips() if clip.name == GOLDEN)
    expected = asyncio.run(label(engine, clip.samples))
    engine.close()
    server = Server(tmp_path / "log", teacher=folder, **settings)
    try:
        server.wait_ready()
        with (ROOT / "k2d" / "inference" / "golden" / GOLDEN).open("rb") as audio:
            answer = httpx.post(
                f"{server.url}/v1/audio/transcriptions",
                files={"file": audio},
                data={"model": "whisper-1", "language": "zh-en"},
                timeout=120,
            )
        assert answer.status_code == 200, answer.text
        assert answer.json()["text"] == expected
    finally:
        assert server.stop() == 0


async def label(engine: Any, samples: Any) -> str:
    """The text of a recording in memory, as labels are made."""
    reader = SimpleNamespace(read=lambda start, stop: samples[start:stop])
    model = MicroBatcher(engine, batch_size=1)
    segments = transcribe(reader, model, LongformOptions(), total_samples=len(samples))
    return join_text([segment.text async for segment in segments])


def test_an_export_can_be_exported_and_has_its_provenance(converted: Converted) -> None:
    first = converted("transformers")
    source = find_source(str(first.folder), which=None, cache=cache(), allow_downloads=False)
    assert source.run == first.source.run
    assert source.recipe == {"seed": 7}


def test_a_full_disk_leaves_nothing(run: Path, tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))  # the tokenizer fits, the weights do not

    done = subprocess.run(
        [sys.executable, "-c", "from k2d.cli import main; main()", "convert", str(run), str(tmp_path / "out")],
        env={**os.environ, "COLUMNS": "200"},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "full" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_shape_whisper_cpp_cannot_run_is_refused(tmp_path: Path) -> None:
    save_student(student(decoder_ffn_dim=256), tmp_path, tokenizer_from=base("transformers").path)
    with pytest.raises(ModelError, match="this decoder's are not"):
        write_ggml(tmp_path, tmp_path, "float16")


def test_the_gate_finds_a_changed_weight(run: Path, tmp_path: Path) -> None:
    """One layer's output is negated between writing and checking."""

    changed = student()
    with torch.no_grad():
        changed.model.decoder.layers[1].fc2.weight.neg_()
    save_student(changed, tmp_path / "changed", tokenizer_from=base("transformers").path)
    checks = gate.check_export(
        run / "student",
        tmp_path / "changed",
        tools=lambda folder, _, cache: decoders.open_k2d(
            folder, "transformers", "float32", cache, modes=(decoders.TEXT,)
        ),
        precision="float32",
        cache=tmp_path / "cache",
    )
    assert [row.clip for row in checks[0].rows] == [clip.name for clip in clips()]
    with pytest.raises(ExportDrift):
        gate.require_pass(checks, 0.0)
