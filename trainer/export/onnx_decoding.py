"""Greedy decoding of an ONNX export with ONNX Runtime and numpy: the gate uses it, and it is an example for others."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from k2d.schema import DecodeOptions, Samples, Window
from k2d.whisper import prompts
from k2d.whisper.features import log_mel
from k2d.whisper.vocabulary import Vocabulary

ENCODER: Final = "encoder_model.onnx"
PROMPT: Final = "decoder_model.onnx"
STEP: Final = "decoder_with_past_model.onnx"
PAST, PRESENT = "past_key_values", "present"  # prefixes of tensor names: what goes in, what comes out


class OnnxWhisper:
    """An export in memory, on the CPU.

    OnnxWhisper(Path("students/onnx")).transcribe(samples, DecodeOptions())
    """

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0: all cores
        self._encoder, self._prompt, self._step = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER, PROMPT, STEP)
        )
        self._vocabulary = Vocabulary(folder / "tokenizer.json")
        features = self._encoder.get_inputs()[0]
        self._mels = int(features.shape[1])
        self._dtype = np.float16 if "float16" in features.type else np.float32

    def transcribe(self, samples: Samples, options: DecodeOptions) -> str:
        """The text of at most 30 s, the likeliest token each time. Of `options`, language, task and limit are used.

        Timestamps are not supported: their rules are in `k2d.whisper.torch_rules`.
        """
        vocabulary = self._vocabulary
        start = prompts.build(
            Window(samples), language=options.language, initial=(), options=options, vocabulary=vocabulary
        )
        features = log_mel(samples, mels=self._mels)[None].astype(self._dtype)  # (1, mels, 3000)
        encoded = self._encoder.run(None, {"input_features": features})[0]  # (1, 1500, width)
        state = self._run(self._prompt, {"input_ids": _ids(start), "encoder_hidden_states": encoded})
        past = {_past(name): value for name, value in state.items() if name != "logits"}
        tokens: list[int] = []
        for _ in range(prompts.room(start, options)):
            token = self._choose(state["logits"][0, -1], first=not tokens)
            if token == vocabulary.eot:
                break
            tokens.append(token)
            state = self._run(self._step, {"input_ids": _ids([token]), **past})
            past |= {_past(name): value for name, value in state.items() if name != "logits"}
        return vocabulary.decode(tokens).strip()

    def _choose(self, logits: npt.NDArray[Any], *, first: bool) -> int:
        vocabulary = self._vocabulary
        logits[list(vocabulary.suppressed)] = -np.inf
        logits[vocabulary.no_timestamps :] = -np.inf
        if first:
            logits[list(vocabulary.suppressed_first)] = -np.inf
        return int(logits.argmax())

    @staticmethod
    def _run(session: Any, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))


def _past(name: str) -> str:
    return name.replace(PRESENT, PAST, 1)


def _ids(tokens: Any) -> npt.NDArray[np.int64]:
    return np.asarray([tokens], np.int64)
