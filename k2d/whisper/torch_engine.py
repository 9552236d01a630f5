"""Whisper in transformers: the reference engine, which also serves a student that has not been converted."""

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import structlog
import torch
from safetensors import SafetensorError
from transformers import WhisperForConditionalGeneration

from k2d.errors import ModelError
from k2d.schema import AUTO, DecodeOptions, ModelInfo, TextScore, Window, WindowResult
from k2d.whisper import prompts, scoring
from k2d.whisper.allocator import keep_freed_memory
from k2d.whisper.engine import Encoding, engine_errors
from k2d.whisper.fallback import DecodingResult, decode_with_fallback
from k2d.whisper.features import FRAMES, context_frames, log_mel
from k2d.whisper.languages import WindowLanguage, most_likely
from k2d.whisper.resolve import ResolvedModel, weight_files
from k2d.whisper.timestamps import finish
from k2d.whisper.torch_decode import Stepper, TokenSampler, beam, greedy, sample
from k2d.whisper.torch_rules import Rules
from k2d.whisper.vocabulary import Vocabulary

PRECISIONS: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

log = structlog.get_logger()


class TransformersEngine:
    """A Whisper model in transformers (`k2d.whisper.engine.Engine`). Windows are decoded one at a time.

    The shape of a batch decides which kernel is used, and with it the last bits of a result; decoded alone, a window's
    result cannot depend on others. For throughput, use the CTranslate2 engine (docs/adr/0002).
    """

    def __init__(self, resolved: ResolvedModel, *, device: str, compute_type: str, threads: int) -> None:
        """Load the weights, and write the mixed zh/en row into them in memory.

        Raises:
            ModelError: the weights are damaged, or the precision or device is not available.
        """
        started = time.monotonic()
        self._vocabulary = Vocabulary(resolved.path / "tokenizer.json")
        device, why_device = _device(device)
        kind, why_kind = _compute_type(compute_type, device)
        if threads:
            torch.set_num_threads(threads)
        allocator = keep_freed_memory() if device == "cpu" else ""
        self._device = torch.device(device)
        self._dtype = PRECISIONS[kind]
        self._model: Any = _load(resolved, vocabulary=self._vocabulary, device=self._device, dtype=self._dtype)
        self._info = ModelInfo(resolved.reference, resolved.digest, "transformers", kind, device)
        log.info(
            "engine ready",
            model=resolved.reference,
            engine="transformers",
            device=f"{device} ({why_device})",
            compute_type=f"{kind} ({why_kind})",
            threads=f"{torch.get_num_threads()} ({'as set' if threads else 'torch default'})",
            **({"allocator": allocator} if allocator else {}),
            seconds=round(time.monotonic() - started, 1),
        )

    @property
    def model(self) -> ModelInfo:
        return self._info

    def check(self, window: Window, options: DecodeOptions, text: str | None = None) -> None:
        if text is None:
            prompts.check(window, options, vocabulary=self._vocabulary)
        else:
            scoring.read([window], [text], options, vocabulary=self._vocabulary)

    @torch.inference_mode()
    def transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        for window in windows:
            self.check(window, options)
        with engine_errors(self._info, closed=self._model is None):
            return [self._transcribe(window, options) for window in windows]

    @torch.inference_mode()
    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        text_tokens = scoring.read(windows, texts, options, vocabulary=self._vocabulary)
        with engine_errors(self._info, closed=self._model is None):
            return [self._score(window, tokens, options) for window, tokens in zip(windows, text_tokens, strict=True)]

    @torch.inference_mode()
    def encode(self, windows: Sequence[Window]) -> Encoding:
        for window in windows:
            self.check(window, DecodeOptions())
        with engine_errors(self._info, closed=self._model is None):
            rows = [self._encode(window, FRAMES)[0].to("cpu", torch.float16).numpy() for window in windows]
        return np.stack(rows) if rows else np.empty((0, 0, 0), np.float16)

    def close(self) -> None:
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _encode(self, window: Window, frames: int) -> torch.Tensor:
        """The encoder's output for one window, shape (1, frames / 2, width)."""
        features = torch.from_numpy(log_mel(window.samples, mels=self._model.config.num_mel_bins)[None, :, :frames])
        encoder, hidden = self._model.model.encoder, features.to(self._device, self._dtype)
        if frames == FRAMES:
            encoded: torch.Tensor = encoder(hidden).last_hidden_state
            return encoded
        # transformers refuses fewer frames, so its layers are called here in its order
        for convolution in (encoder.conv1, encoder.conv2):
            hidden = torch.nn.functional.gelu(convolution(hidden))
        hidden = hidden.permute(0, 2, 1)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        for layer in encoder.layers:
            hidden = layer(hidden, None)
        normalised: torch.Tensor = encoder.layer_norm(hidden)
        return normalised

    def _score(self, window: Window, text_tokens: tuple[int, ...], options: DecodeOptions) -> TextScore:
        if not text_tokens:
            return scoring.finish((), ())
        encoded = self._encode(window, context_frames(window, options))
        language = self._language(encoded, options)
        start = scoring.start(window, language=language.code, options=options, vocabulary=self._vocabulary)
        logits = self._stepper(encoded).forced(start, text_tokens)[:, : self._vocabulary.eot]
        wanted = torch.tensor(text_tokens, device=logits.device)[:, None]
        probabilities = torch.softmax(logits.double(), dim=-1).gather(1, wanted)[:, 0]
        return scoring.finish(text_tokens, probabilities.tolist())

    def _transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        encoded = self._encode(window, context_frames(window, options))
        language = self._language(encoded, options)
        initial = prompts.initial_tokens(options, vocabulary=self._vocabulary)
        prompt = prompts.build(
            window, language=language.code, initial=initial, options=options, vocabulary=self._vocabulary
        )

        def decode(indices: Sequence[int], temperature: float) -> list[DecodingResult]:
            return [self._decode(encoded, window, prompt, temperature=temperature, options=options) for _ in indices]

        (result, temperature), *_ = decode_with_fallback(1, options=options, decode=decode)
        return finish(
            result,
            temperature=temperature,
            language=language.code,
            language_probs=language.probs,
            vocabulary=self._vocabulary,
            samples=len(window.samples),
        )

    def _stepper(self, encoded: torch.Tensor) -> Stepper:
        return Stepper(self._model, encoded=encoded, mixed=self._vocabulary.sot_lm)

    def _language(self, encoded: torch.Tensor, options: DecodeOptions) -> WindowLanguage:
        """The window's language: the requested one, or the one detected after start-of-transcript."""
        if options.language != AUTO:
            return WindowLanguage(options.language, ())
        vocabulary = self._vocabulary
        logits = self._stepper(encoded).start([vocabulary.sot], sot_at=0, no_speech=vocabulary.no_speech).logits[0]
        probabilities = torch.softmax(logits[list(vocabulary.languages.values())], dim=-1).tolist()
        return most_likely(dict(zip(vocabulary.languages, probabilities, strict=True)))

    def _decode(
        self,
        encoded: torch.Tensor,
        window: Window,
        prompt: Sequence[int],
        *,
        temperature: float,
        options: DecodeOptions,
    ) -> DecodingResult:
        vocabulary = self._vocabulary
        stepper = self._stepper(encoded)
        start = stepper.start(prompt, sot_at=prompt.index(vocabulary.sot), no_speech=vocabulary.no_speech)
        rules = Rules(vocabulary, options, device=self._device)
        limits = {"room": prompts.room(prompt, options), "eot": vocabulary.eot}
        if temperature > 0.0:
            samplers = [
                TokenSampler(window, temperature=temperature, candidate=number) for number in range(options.best_of)
            ]
            best = sample(stepper, start, rules, samplers=samplers, temperature=temperature, **limits)
        elif options.beam_size > 1:
            best = beam(stepper, start, rules, size=options.beam_size, **limits)
        else:
            best = greedy(stepper, start, rules, **limits)
        return DecodingResult.of(
            vocabulary.without_specials(best.tokens),
            generated=len(best.tokens),
            total_logprob=best.total_logprob,
            no_speech_prob=start.no_speech,
            text=vocabulary.decode(best.tokens),
        )


def _device(setting: str) -> tuple[str, str]:
    """The device for a setting ("auto", "cpu" or "cuda"), and why."""
    if setting == "auto":
        return ("cuda", torch.cuda.get_device_name()) if torch.cuda.is_available() else ("cpu", "no CUDA device")
    if setting == "cuda" and not torch.cuda.is_available():
        raise ModelError("torch finds no CUDA device", hint="set K2D_DEVICE=cpu, or install a CUDA build of torch")
    return setting, "as set"


def _compute_type(setting: str, device: str) -> tuple[str, str]:
    """The precision for a setting ("auto" or one of PRECISIONS) on a device, and why."""
    if setting == "auto":
        return ("float16", "Whisper's own") if device == "cuda" else ("float32", "fastest on a CPU")
    if setting not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ModelError(f"the transformers engine has no compute type {setting!r}", hint=f"it has: auto, {known}")
    return setting, "as set"


def _load(resolved: ResolvedModel, *, vocabulary: Vocabulary, device: torch.device, dtype: torch.dtype) -> Any:
    """Load the weights from safetensors, and write the mixed row into the token embeddings of a multilingual model.

    Raises:
        ModelError: the weights are damaged, or of another model than the tokenizer.
    """
    try:
        model: Any = WhisperForConditionalGeneration.from_pretrained(
            resolved.path, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        names = ", ".join(str(file) for file in weight_files(resolved.path))
        raise ModelError(f"{names} cannot be loaded: {error}", hint="fetch the model again") from error
    embeddings = model.model.decoder.embed_tokens.weight
    if embeddings.shape[0] < vocabulary.size:
        raise ModelError(
            f"{resolved.path} has {embeddings.shape[0]} embeddings for {vocabulary.size} tokens",
            hint="fetch the model again",
        )
    if not vocabulary.is_multilingual:
        return model.to(device).eval()
    sources = [vocabulary.languages[code] for code in prompts.MIXED_CODES]
    with torch.no_grad():
        embeddings[vocabulary.sot_lm] = embeddings[sources].float().mean(dim=0).to(dtype)
    return model.to(device).eval()
