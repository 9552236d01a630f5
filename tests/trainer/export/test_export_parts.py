"""The pure parts of an export: names, tokens, settings, the gate's judgement, the card, what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("jinja2", reason="needs the train extra")

from weights import base

from k2d.errors import BadRequest, Conflict, ModelError, NotFound
from k2d.whisper.vocabulary import Vocabulary
from trainer.errors import ExportDrift
from trainer.export import card, gate, ggml
from trainer.export.decoders import PLAIN, STAMPED, TEXT, ToolDecoder
from trainer.export.exporter import convert
from trainer.export.folder import generation_for_tools
from trainer.export.record import Export
from trainer.export.source import ExportSource, find_source
from trainer.export.tokenizer import write_tokenizer
from trainer.options import Recipe


@pytest.fixture(scope="module")
def tokenizer() -> Path:
    return base().path / "tokenizer.json"


# ---- names and tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("encoder.conv1.bias", "encoder.conv1.bias"),
        ("encoder.embed_positions.weight", "encoder.positional_embedding"),
        ("encoder.layer_norm.weight", "encoder.ln_post.weight"),
        ("decoder.layer_norm.bias", "decoder.ln.bias"),
        ("decoder.embed_tokens.weight", "decoder.token_embedding.weight"),
        ("encoder.layers.11.self_attn.k_proj.weight", "encoder.blocks.11.attn.key.weight"),
        ("decoder.layers.0.encoder_attn.k_proj.weight", "decoder.blocks.0.cross_attn.key.weight"),
        ("decoder.layers.1.self_attn_layer_norm.weight", "decoder.blocks.1.attn_ln.weight"),
        ("decoder.layers.1.final_layer_norm.bias", "decoder.blocks.1.mlp_ln.bias"),
        ("decoder.layers.1.fc2.weight", "decoder.blocks.1.mlp.2.weight"),
    ],
)
def test_whisper_cpp_gets_openais_names(ours: str, theirs: str) -> None:
    assert ggml.openai_name(ours) == theirs


def test_token_bytes_spell_the_text(tokenizer: Path) -> None:
    vocabulary = Vocabulary(tokenizer)
    encoded = ggml.token_bytes(tokenizer)
    assert len(encoded) == vocabulary.eot
    text = " 今天的 meeting 改到 3 點，café\n"
    assert b"".join(encoded[token] for token in vocabulary.encode(text)).decode() == text


def test_the_tokenizers_first_merge_is_there_for_everybody(tokenizer: Path, tmp_path: Path) -> None:
    write_tokenizer(tokenizer, tmp_path)
    merges = (tmp_path / "merges.txt").read_text("utf-8").splitlines()
    assert merges[1] == "Ġ t"
    assert Vocabulary(tmp_path / "tokenizer.json").encode(" the") == [264]
    from transformers import WhisperTokenizer

    theirs: Any = WhisperTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert theirs.encode(" the", add_special_tokens=False) == [264]
    assert theirs.convert_tokens_to_ids("<|zh|>") == 50260


# ---- settings ------------------------------------------------------------------------------------------------------


def test_no_language_is_forced(tokenizer: Path) -> None:
    shape, vocabulary = SimpleNamespace(decoder_layers=2, decoder_attention_heads=2), Vocabulary(tokenizer)
    known = {"forced_decoder_ids": [[1, 50259]], "max_length": 200, "suppress_tokens": None}
    settings = generation_for_tools(known, shape, vocabulary=vocabulary, mixed=True)
    assert "forced_decoder_ids" not in settings
    assert settings["max_length"] == 200
    assert settings["suppress_tokens"] == list(vocabulary.suppressed)
    assert settings["language"] == "<|zh|>"
    assert "language" not in generation_for_tools(known, shape, vocabulary=vocabulary, mixed=False)


# ---- the gate ------------------------------------------------------------------------------------------------------


def _check(expected: str, text: str, *, exact: bool = True) -> gate.ToolCheck:
    tool = ToolDecoder("a tool", lambda samples, language: text, TEXT, exact)
    return gate.compare_texts(tool, [expected, "same", "same"], [text, "same", "same"])


@pytest.mark.parametrize(
    ("expected", "text", "exact", "allowed", "passes"),
    [
        ("打開 the door", "打開 the door", True, 0.0, True),
        ("打開 the door", "打開 the doors", True, 0.0, False),
        ("打開 the door", "打開 the doors", True, 0.2, True),  # 1 of 6 tokens
        ("打開 the door", "打開 the doors", True, 0.1, False),
        ("好, 走", "好 走", True, 0.0, False),  # every letter
        ("好, 走", "好 走", False, 0.0, True),  # every token
        ("好, 走", "好 走", True, 0.01, True),
        ("好 走", "好", False, 0.0, False),
    ],
)
def test_what_passes(expected: str, text: str, exact: bool, allowed: float, passes: bool) -> None:
    check = _check(expected, text, exact=exact)
    assert check.passes(allowed) is passes
    if passes:
        gate.require_pass([check], allowed)
    else:
        with pytest.raises(ExportDrift, match="a tool transcribes 1 of 3 clips differently"):
            gate.require_pass([_check("x", "x"), check], allowed)


def test_only_8_bits_may_drift_unasked() -> None:
    assert gate.allowed_drift("float16", None) == gate.allowed_drift("float32", None) == 0.0
    assert gate.allowed_drift("int8_float16", None) == gate.INT8_DRIFT
    assert gate.allowed_drift("int8", 0.0) == 0.0


def test_tools_without_the_mixed_prompt_get_the_leading_language() -> None:
    assert [STAMPED.language("zh-en"), TEXT.language("en")] == ["zh-en", "zh-en"]
    assert [PLAIN.language(said) for said in ("zh-en", "zh", "en")] == ["zh", "zh", "en"]


# ---- the card ------------------------------------------------------------------------------------------------------

RUN = {
    "teacher": {"reference": "openai/whisper-large-v2", "digest": "abc"},
    "student": [
        {
            "part": "decoder", "teacher_layers": 32, "student_layers": 2, "copied_from": [0, 31],
            "teacher_parameters": 9e8, "student_parameters": 1.2e8,
        }
    ],
    "dataset": {
        "name": "talks-1", "digest": "d1", "rows": 812, "seconds": 7200.0, "seconds_offered": 14400.0,
        "policy_explanation": "composite ≤ 0.4 | loops left out",
        "teachers": [{"fingerprint": "t:1", "model": {"reference": "openai/whisper-large-v2"}}],
        "validators": [{"name": "perturbed:x", "fingerprint": "v:1", "fallback": True}],
    },
    "k2d_version": "0.1.0", "libraries": {"torch": "2.13"}, "machine": {"device": "cpu"},
    "steps_done": 40, "finished": False, "best_mer": 0.25, "best_step": 30,
}  # fmt: skip


def _export(run: dict[str, Any], recipe: dict[str, Any]) -> Export:
    source = ExportSource("/runs/a", Path("/runs/a/best"), "digest-of-it", "best" if run else None, run, recipe)
    checks = (_check("x", "x"),)
    return Export(Path("/out/my-student"), "ctranslate2", "float16", 12_000_000, 0.0, checks, source)


def _side(digest: str, mer: float) -> dict[str, Any]:
    rate = {"value": mer, "low": mer - 0.01, "high": mer + 0.01}
    return {
        "reference": f"ref-{digest}",
        "model": {"digest": digest, "engine": "ctranslate2", "compute_type": "int8"},
        "figures": {"mer": {"rate": rate}, "zh_cer": {"rate": {"value": None, "low": None, "high": None}}},
        "speed": {"real_time": 20.0},
    }


def test_a_card_tells_where_it_comes_from() -> None:
    text = card.card(_export(RUN, Recipe(seed=7).model_dump(mode="json")), None, licence="mit")
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    head = yaml.safe_load(front)
    assert head["license"] == "mit"
    assert head["language"] == ["zh", "en"]
    assert head["base_model"] == "openai/whisper-large-v2"
    assert head["pipeline_tag"] == "automatic-speech-recognition"
    assert "model-index" not in head
    for said in (
        "2.00 h kept of 4.00 h", "a fallback", "composite ≤ 0.4 \\| loops left out", "| `seed` | 7 |", "`ce_weight`",
        "not finished", "25.00 % at step 30", "2 layers of the teacher's 32 (0, 31)", "WhisperModel", "digest-of-it",
        "| a tool | no | 3 of 3 | 0.00 % |",
    ):  # fmt: skip
        assert said in body, said


def test_a_card_invents_nothing() -> None:
    text = card.card(_export({}, {}), None)
    assert text.count("Not known to this export.") == 2
    assert "how it was\ntrained is not known" in text.lower()
    assert "base_model" not in text


def test_a_card_has_the_results_of_an_evaluation() -> None:
    evaluation = {
        "models": [_side("teacher", 0.2), _side("digest-of-it", 0.3), _side("other", 0.9)],
        "set": {"name": "talks|test", "seconds": 1800.0, "pseudo_labels": False},
        "language": "zh-en",
    }
    text = card.card(_export(RUN, {}), evaluation)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["model-index"][0]["results"][0]["metrics"] == [
        {"type": "mer", "name": "mixed error rate", "value": 30.0}
    ]
    assert "| mixed error rate | 30.00 | 29.00–31.00 | 20.00 |" in text


@pytest.mark.parametrize("content", [None, "{", "[]", '{"models": [], "set": {"name": "x"}}'])
def test_results_that_are_none_are_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "report.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadRequest, match=r"report\.json"):
        card.read_evaluation(file)


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_there_must_be_something_to_export(tmp_path: Path) -> None:
    how: dict[str, Any] = {"cache": tmp_path / "cache", "allow_downloads": False}
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text("{}")
    with pytest.raises(NotFound, match="has no last student"):
        find_source(str(run), which=None, **how)
    with pytest.raises(NotFound, match="has no best student"):
        find_source(str(run), which="best", **how)
    with pytest.raises(NotFound, match="does not exist"):
        find_source(str(tmp_path / "nowhere"), which=None, **how)
    with pytest.raises(BadRequest, match="is not a run folder"):
        find_source("packaged:whisper-base", which="best", **how)
    (run / "student").mkdir()
    with pytest.raises(ModelError, match="holds no model"):
        find_source(str(run), which=None, **how)


def test_what_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    how: dict[str, Any] = {"cache": tmp_path, "allow_downloads": False}
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    with pytest.raises(Conflict, match="not empty"):
        convert("packaged:whisper-base", full, format="transformers", **how)
    with pytest.raises(BadRequest, match="unknown format") as wrong:
        convert("packaged:whisper-base", tmp_path / "out", format="tflite", **how)
    assert "onnx" in (wrong.value.hint or "")
    with pytest.raises(BadRequest, match="no precision 'int8'"):
        convert("packaged:whisper-base", tmp_path / "out", format="transformers", precision="int8", **how)
    assert (full / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "student").mkdir()
    real = base("transformers").path
    for file in real.iterdir():
        (tmp_path / "student" / file.name).symlink_to(file)
    with pytest.raises(BadRequest, match=r"run\.json cannot be read"):
        find_source(str(tmp_path), which=None, cache=tmp_path / "cache", allow_downloads=False)
    (tmp_path / "run.json").write_text(json.dumps({"steps_done": 3}))
    assert (
        find_source(str(tmp_path), which=None, cache=tmp_path / "cache", allow_downloads=False).run["steps_done"] == 3
    )


def test_a_student_that_loops_is_named_and_another_is_not() -> None:
    names = [clip.name for clip in gate.clips()]
    tool = ToolDecoder("tool", lambda samples, language: "", PLAIN)
    fine = ["今天的 meeting 改到三點", "我們下禮拜再說", "we will see you on Monday"]
    loops = [fine[0], "謝謝大家" * 5, fine[2]]
    assert gate.looping_clips([gate.compare_texts(tool, fine, fine)]) == []
    assert gate.looping_clips([gate.compare_texts(tool, loops, loops)] * 2) == [names[1]]
