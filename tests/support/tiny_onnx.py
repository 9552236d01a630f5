"""Models of sherpa-onnx small enough to build in a test: the families' graphs with one random layer.

Each maps every frame of features to a token by a random projection, so the text is nonsense but depends on the audio.
Inputs, outputs and metadata are what sherpa-onnx reads of each family (its C++ sources, csrc/offline-*-model.cc).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TOKENS = ("<blk>", "▁good", "▁morning", "你", "好", "▁deadline", "的", "</s>")
BINS = 80
PARTS = ("encoder", "decoder", "joiner")
MFCC_BINS = 40
LFR_BINS = 560  # 7 frames stacked, as SenseVoice and Paraformer read them


def write(folder: Path, family: str, *, seed: int = 3, name: str = "model.onnx") -> Path:
    """Write a model of a family and its tokens into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    models = FAMILIES[family](np.random.default_rng(seed))
    for part, model in (models if isinstance(models, dict) else {name: models}).items():
        onnx.save(model, folder / part)
    tokens = (*TOKENS[1:], "<blk>") if family == "nemo" else TOKENS  # NeMo's blank is the last
    (folder / "tokens.txt").write_text("".join(f"{token} {id}\n" for id, token in enumerate(tokens)), "utf-8")
    return folder


def nemo(random: np.random.Generator) -> onnx.ModelProto:
    nodes = [helper.make_node("Transpose", ["audio_signal"], ["x"], perm=[0, 2, 1]), *_projection("x", "logprobs")]
    return _model(
        nodes,
        [_tensor("audio_signal", ["N", BINS, "T"]), _tensor("length", ["N"], TensorProto.INT64)],
        [_tensor("logprobs", ["N", "T", len(TOKENS)])],
        [_weights(random, BINS)],
        model_type="EncDecCTCModelBPE",
        vocab_size=len(TOKENS) - 1,
        subsampling_factor=1,
        normalize_type="per_feature",
    )


def zipformer(random: np.random.Generator) -> onnx.ModelProto:
    nodes = [*_projection("x", "log_probs"), helper.make_node("Identity", ["x_lens"], ["log_probs_len"])]
    return _model(
        nodes,
        [_tensor("x", ["N", "T", BINS]), _tensor("x_lens", ["N"], TensorProto.INT64)],
        [_tensor("log_probs", ["N", "T", len(TOKENS)]), _tensor("log_probs_len", ["N"], TensorProto.INT64)],
        [_weights(random, BINS)],
        model_type="zipformer2_ctc",
    )


def telespeech(random: np.random.Generator) -> onnx.ModelProto:
    # frames come first in its output
    nodes = [*_projection("feats", "by_file"), helper.make_node("Transpose", ["by_file"], ["logits"], perm=[1, 0, 2])]
    return _model(
        nodes,
        [_tensor("feats", ["N", "T", MFCC_BINS])],
        [_tensor("logits", ["T", "N", len(TOKENS)])],
        [_weights(random, MFCC_BINS)],
        model_type="telespeech_ctc",
    )


def sense_voice(random: np.random.Generator) -> onnx.ModelProto:
    prefix = numpy_helper.from_array(np.zeros((1, 4, LFR_BINS), np.float32), "prefix")  # language, event, emotion, ITN
    nodes = [
        helper.make_node("Concat", ["prefix", "x"], ["whole"], axis=1),
        *_projection("whole", "logits"),
    ]
    return _model(
        nodes,
        [
            _tensor("x", ["N", "T", LFR_BINS]),
            *(_tensor(name, ["N"], TensorProto.INT32) for name in ("x_length", "language", "text_norm")),
        ],
        [_tensor("logits", ["N", "L", len(TOKENS)])],
        [_weights(random, LFR_BINS), prefix],
        model_type="sense_voice_ctc",
        vocab_size=len(TOKENS),
        lfr_window_size=7,
        lfr_window_shift=6,
        normalize_samples=0,
        with_itn=14,
        without_itn=15,
        **{f"lang_{code}": number for number, code in enumerate(("auto", "zh", "en", "yue", "ja", "ko"))},
        neg_mean=",".join(["0"] * LFR_BINS),
        inv_stddev=",".join(["1"] * LFR_BINS),
    )


def paraformer(random: np.random.Generator) -> onnx.ModelProto:
    nodes = [*_projection("speech", "logits"), helper.make_node("Identity", ["speech_lengths"], ["token_num"])]
    return _model(
        nodes,
        [_tensor("speech", ["N", "T", LFR_BINS]), _tensor("speech_lengths", ["N"], TensorProto.INT32)],
        [_tensor("logits", ["N", "T", len(TOKENS)]), _tensor("token_num", ["N"], TensorProto.INT32)],
        [_weights(random, LFR_BINS)],
        model_type="paraformer",
        vocab_size=len(TOKENS),
        lfr_window_size=7,
        lfr_window_shift=6,
        neg_mean=",".join(["0"] * LFR_BINS),
        inv_stddev=",".join(["1"] * LFR_BINS),
    )


def transducer(random: np.random.Generator) -> dict[str, onnx.ModelProto]:
    encoder = _model(
        [
            helper.make_node("MatMul", ["x", "weights"], ["encoder_out"]),
            helper.make_node("Identity", ["x_lens"], ["encoder_out_lens"]),
        ],
        [_tensor("x", ["N", "T", BINS]), _tensor("x_lens", ["N"], TensorProto.INT64)],
        [_tensor("encoder_out", ["N", "T", len(TOKENS)]), _tensor("encoder_out_lens", ["N"], TensorProto.INT64)],
        [_weights(random, BINS)],
        model_type="zipformer2",
    )
    table = numpy_helper.from_array(random.normal(size=(len(TOKENS), len(TOKENS))).astype(np.float32), "table")
    decoder = _model(
        [
            helper.make_node("Gather", ["table", "y"], ["embedded"]),
            helper.make_node("ReduceMean", ["embedded"], ["decoder_out"], axes=[1], keepdims=0),
        ],
        [_tensor("y", ["N", 2], TensorProto.INT64)],
        [_tensor("decoder_out", ["N", len(TOKENS)])],
        [table],
        context_size=2,
        vocab_size=len(TOKENS),
    )
    joiner = _model(
        [helper.make_node("Add", ["encoder_out", "decoder_out"], ["logit"])],
        [_tensor(name, ["N", len(TOKENS)]) for name in ("encoder_out", "decoder_out")],
        [_tensor("logit", ["N", len(TOKENS)])],
        [],
        joiner_dim=len(TOKENS),
    )
    return {f"{part}-epoch-1-avg-1.onnx": model for part, model in zip(PARTS, (encoder, decoder, joiner), strict=True)}


FAMILIES: dict[str, Callable[[np.random.Generator], onnx.ModelProto | dict[str, onnx.ModelProto]]] = {
    "transducer": transducer,
    "nemo": nemo,
    "zipformer": zipformer,
    "telespeech": telespeech,
    "sense_voice": sense_voice,
    "paraformer": paraformer,
}


def _projection(source: str, target: str) -> list[Any]:
    return [
        helper.make_node("MatMul", [source, "weights"], [f"{target}_raw"]),
        helper.make_node("LogSoftmax", [f"{target}_raw"], [target], axis=-1),
    ]


def _weights(random: np.random.Generator, bins: int) -> onnx.TensorProto:
    return numpy_helper.from_array(random.normal(size=(bins, len(TOKENS))).astype(np.float32), "weights")


def _tensor(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list[Any],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto],
    **metadata: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
    onnx.checker.check_model(model)
    return model
