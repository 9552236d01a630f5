"""Models by reference: found, verified, hashed, converted; every way to be damaged names its file."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from weights import BASE, base

from k2d.errors import ModelError
from k2d.whisper import packaged
from k2d.whisper.ct2_file import array, tensors
from k2d.whisper.load import open_engine
from k2d.whisper.resolve import RECORD, digest_of, resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the weights that a test may damage."""
    return Path(shutil.copytree(base().path, tmp_path / "model"))


def test_packaged_weights_are_what_the_pin_says() -> None:
    resolved = base()
    assert resolved.format == "ctranslate2"
    assert resolved.reference == BASE
    assert sorted(p.name for p in resolved.path.iterdir()) == [
        "config.json",
        "model.bin",
        "tokenizer.json",
        "vocabulary.txt",
    ]
    assert (resolved.path / "model.bin").stat().st_size == 145_217_532


def test_the_digest_is_of_the_content_not_the_place(folder: Path, tmp_path: Path) -> None:
    moved = resolve(str(folder), engine="ctranslate2", cache=tmp_path / "cache", allow_downloads=False)
    assert moved.digest == base().digest == digest_of(folder)
    config = folder / "config.json"
    config.write_text(config.read_text("utf-8") + "\n", "utf-8")
    changed = resolve(str(folder), engine="ctranslate2", cache=tmp_path / "cache", allow_downloads=False)
    assert changed.digest != moved.digest


def test_weights_replaced_with_the_same_size_and_time_have_another_digest(folder: Path, tmp_path: Path) -> None:
    first = resolve(str(folder), engine="ctranslate2", cache=tmp_path / "cache", allow_downloads=False)
    flip_a_bit(folder / "model.bin")
    changed = resolve(str(folder), engine="ctranslate2", cache=tmp_path / "cache", allow_downloads=False)
    assert changed.digest != first.digest


def flip_a_bit(path: Path) -> None:
    """Change one bit in the middle of a file; size and modification time stay."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size // 2)
        byte = file.read(1)[0]
        file.seek(status.st_size // 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json", "vocabulary.txt"])
def test_packaged_files_that_were_changed_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "cache"
    own = cache / "packaged" / "whisper-base-1.0.0"
    own.parent.mkdir(parents=True)
    folder.rename(own)
    assert resolve(BASE, engine="ctranslate2", cache=cache, allow_downloads=False).path == own
    flip_a_bit(own / name)
    with pytest.raises(ModelError, match=name) as caught:
        resolve(BASE, engine="ctranslate2", cache=cache, allow_downloads=False)
    assert str(own) in str(caught.value.hint)


@pytest.mark.torch
def test_converted_files_that_were_changed_are_refused(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")

    def converted() -> Path:
        return resolve(str(folder), engine="transformers", cache=tmp_path, allow_downloads=False).path

    target = converted()
    assert converted() == target
    (target / "more.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match=r"more\.json"):
        converted()
    (target / "more.json").unlink()
    flip_a_bit(target / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors is not the file that was converted") as caught:
        converted()
    assert str(target) in str(caught.value.hint)
    shutil.rmtree(target)
    assert converted() == target
    (target / RECORD).unlink()
    with pytest.raises(ModelError, match=RECORD):
        converted()


def test_a_conversion_keeps_the_digest_and_every_number() -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import load_file

    original, converted = base(), base("transformers")
    assert converted.format == "transformers"
    assert converted.digest == original.digest
    state = load_file(converted.path / "model.safetensors")
    file = original.path / "model.bin"
    data = memoryview(file.read_bytes())
    found = tensors(data, file=file)
    embeddings = array(data, found["decoder/embeddings/weight"])
    assert np.array_equal(state["model.decoder.embed_tokens.weight"], embeddings)
    fused = array(data, found["encoder/layer_3/self_attention/linear_0/weight"])
    parts = [state[f"model.encoder.layers.3.self_attn.{p}_proj.weight"] for p in "qkv"]
    assert np.array_equal(np.concatenate(parts), fused)
    key_bias = array(data, found["decoder/layer_2/attention/linear_1/bias"])[:512]
    assert not key_bias.any()  # transformers has none, so nothing may be lost


@pytest.mark.slow
@pytest.mark.torch
def test_a_conversion_there_and_back_keeps_every_bit(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    there = base("transformers")
    back = resolve(str(there.path), engine="ctranslate2", cache=tmp_path, allow_downloads=False)
    assert back.format == "ctranslate2"
    files = [folder / "model.bin" for folder in (base().path, back.path)]
    old, new = (memoryview(file.read_bytes()) for file in files)
    before, after = tensors(old, file=files[0]), tensors(new, file=files[1])
    weights = [name for name in before if name.endswith(("/weight", "/bias", "/gamma", "/beta", "/encodings"))]
    assert len(weights) > 200
    assert all(np.array_equal(array(old, before[name]), array(new, after[name])) for name in weights)


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_missing_and_empty_files_are_named(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(ModelError, match=f"{name} is empty"):
        resolve(str(folder), engine="ctranslate2", cache=tmp_path / "cache", allow_downloads=False)
    (folder / name).unlink()
    with pytest.raises(ModelError, match="holds no model" if name == "model.bin" else f"{name} is missing"):
        resolve(str(folder), engine="ctranslate2", cache=tmp_path / "cache", allow_downloads=False)


@pytest.mark.parametrize("keep", [10, 1_000, 60_000_000])
def test_truncated_weights_are_named(folder: Path, tmp_path: Path, keep: int) -> None:
    with (folder / "model.bin").open("r+b") as file:
        file.truncate(keep)
    with pytest.raises(ModelError, match=r"model\.bin") as caught:
        open_engine(
            str(folder),
            engine="ctranslate2",
            device="cpu",
            compute_type="auto",
            threads=1,
            cache=tmp_path / "cache",
            allow_downloads=False,
        )
    assert caught.value.hint


@pytest.mark.torch
def test_truncated_safetensors_are_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base("transformers").path, tmp_path / "model"))
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        open_engine(
            str(folder),
            engine="transformers",
            device="cpu",
            compute_type="auto",
            threads=1,
            cache=tmp_path / "cache",
            allow_downloads=False,
        )


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("packaged:whisper-huge", "no packaged model"),
        ("/no/such/folder", "no model at"),
        ("./nowhere", "no model at"),
        ("two words", "no model at"),
        ("someone/some-whisper", "not in the cache"),
        (BASE, "downloads are off"),
    ],
)
def test_what_cannot_be_found_says_what_to_do(tmp_path: Path, reference: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        resolve(reference, engine="ctranslate2", cache=tmp_path, allow_downloads=False)
    assert caught.value.hint


def test_a_hub_that_does_not_answer_is_a_matter_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(ModelError, match="the hub cannot be reached") as caught:
        resolve("foo/bar", engine="ctranslate2", cache=tmp_path, allow_downloads=True)
    assert "network" in (caught.value.hint or "")
    assert "allow downloads" not in (caught.value.hint or "")


@pytest.mark.parametrize("model", packaged.MODELS.values(), ids=packaged.MODELS)
def test_weights_that_are_not_the_pinned_ones_are_refused(model: packaged.PackagedModel, tmp_path: Path) -> None:
    for package, weights in zip(model.packages, model.weights, strict=True):
        data = tmp_path / package.replace("-", "_") / model.folder
        data.mkdir(parents=True)
        (data / weights).write_bytes(b"not Whisper")
    with pytest.raises(ModelError, match="sha256"):
        packaged._assemble(model, tmp_path, tmp_path)


def test_nothing_half_made_stays_in_the_cache(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (folder / "tokenizer.json").write_text("{}", "utf-8")
    target = tmp_path / "cache"
    with pytest.raises(ModelError):
        resolve(str(folder), engine="transformers", cache=target, allow_downloads=False)
    assert list((target / "converted").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    with pytest.raises(ModelError, match="cache cannot be written"):
        resolve(str(base().path), engine="transformers", cache=tmp_path / "file", allow_downloads=False)
