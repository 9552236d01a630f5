"""Whisper in transformers: the reference engine, which also serves a student that has not been converted."""

import hashlib
import time
from collections.abc import Iterator, Sequence
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
from k2d.whisper.batches import alike, results_of, starts_of
from k2d.whisper.engine import Encoding, engine_errors
from k2d.whisper.fallback import DecodingResult, decode_with_fallback
from k2d.whisper.features import FRAMES, context_frames
from k2d.whisper.languages import WindowLanguage, most_likely
from k2d.whisper.resolve import ResolvedModel, weight_files
from k2d.whisper.torch_decoder import WindowDecoder
from k2d.whisper.torch_features import log_mels
from k2d.whisper.torch_rules import Rules
from k2d.whisper.torch_search import LOOK_EVERY, Dice, Likeliest, SearchLimits, beam, one_by_one
from k2d.whisper.vocabulary import Vocabulary

PRECISIONS: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

CACHED_WINDOWS: Final = 16  # whose encoder output is kept: 3 MB each for base, 4 MB for large in half precision
USED_SHARE: Final = 0.8  # of a GPU's free memory; chosen: fragments, and what kernels take for themselves

log = structlog.get_logger()


class TransformersEngine:
    """A Whisper model in transformers (`k2d.whisper.engine.Engine`), with a decoder of its own (`torch_decoder`).

    On a GPU windows are decoded together, as many as its memory holds. There the shape of a batch may choose another
    kernel, and with it the last bits of a result. On a CPU each window is decoded alone, so that its result cannot
    depend on others (docs/adr/0002).
    """

    def __init__(
        self,
        resolved: ResolvedModel,
        *,
        device: str,
        compute_type: str,
        threads: int,
        windows_at_once: int | None = None,
    ) -> None:
        """Load the weights, and write the mixed zh/en row into them in memory.

        `windows_at_once`: windows that are decoded together; None: one on a CPU, what fits into memory on a GPU.

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
        self._decoder: Any = WindowDecoder(self._model, never=self._vocabulary.sot_lm)
        self._at_once = windows_at_once or (1 if device == "cpu" else None)
        self._encoded: dict[bytes, torch.Tensor] = {}  # of the last windows, by the hash of their samples, oldest first
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
        results: dict[int, WindowResult] = {}
        with engine_errors(self._info, closed=self._model is None):
            for part in self._parts(windows, options):
                results.update(zip(part, self._transcribe([windows[at] for at in part], options), strict=True))
        return [results[at] for at in range(len(windows))]

    @torch.inference_mode()
    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        text_tokens = scoring.read(windows, texts, options, vocabulary=self._vocabulary)
        scores = [scoring.finish((), ())] * len(windows)
        with engine_errors(self._info, closed=self._model is None):
            for part in self._parts(windows, options):
                spoken = [at for at in part if text_tokens[at]]
                own = [windows[at] for at in spoken], [text_tokens[at] for at in spoken]
                for at, score in zip(spoken, self._score(*own, options), strict=True):
                    scores[at] = score
        return scores

    @torch.inference_mode()
    def encode(self, windows: Sequence[Window]) -> Encoding:
        for window in windows:
            self.check(window, DecodeOptions())
        with engine_errors(self._info, closed=self._model is None):
            parts = self._parts(windows, DecodeOptions())
            rows = [
                self._encode([windows[at] for at in part], FRAMES).to("cpu", torch.float16).numpy() for part in parts
            ]
        return np.concatenate(rows) if rows else np.empty((0, 0, 0), np.float16)

    def close(self) -> None:
        self._model = self._decoder = None
        self._encoded.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _parts(self, windows: Sequence[Window], options: DecodeOptions) -> Iterator[list[int]]:
        """The windows' indices in parts that are worked on together, of one length of context each."""
        for frames, same in alike(context_frames(window, options) for window in windows).items():
            size = self._at_once or self._that_fit(frames, options)
            yield from (same[start : start + size] for start in range(0, len(same), size))

    def _that_fit(self, frames: int, options: DecodeOptions) -> int:
        """How many windows fit into what is free of a GPU's memory."""
        free, _ = torch.cuda.mem_get_info(self._device)
        kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        config = self._model.config
        bytes_each = window_bytes(
            width=config.d_model,
            layers=config.decoder_layers,
            vocabulary=config.vocab_size,
            frames=frames,
            rows=max(options.beam_size, options.best_of),
            value_bytes=self._dtype.itemsize,
        )
        return max(1, int(USED_SHARE * (free + kept)) // bytes_each)

    def _encode(self, windows: Sequence[Window], frames: int) -> torch.Tensor:
        """The encoder's output for some windows, shape (windows, frames / 2, width); the last ones are remembered.

        A validator decodes a window and then scores a text for it: that takes one encoder pass.
        """
        salt = frames.to_bytes(2)
        hashes = [hashlib.blake2b(each.samples.tobytes(), digest_size=16, salt=salt).digest() for each in windows]
        if all(hash_ in self._encoded for hash_ in hashes):
            return torch.stack([self._encoded[hash_] for hash_ in hashes])
        samples = [window.samples for window in windows]
        features = log_mels(samples, mels=self._model.config.num_mel_bins, device=self._device)
        encoded = self._through_encoder(features[:, :, :frames].to(self._dtype))
        self._encoded.update(zip(hashes, encoded, strict=True))
        while len(self._encoded) > max(CACHED_WINDOWS, len(windows)):
            del self._encoded[next(iter(self._encoded))]
        return encoded

    def _through_encoder(self, hidden: torch.Tensor) -> torch.Tensor:
        encoder = self._model.model.encoder
        if hidden.shape[-1] == FRAMES:
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

    def _score(
        self, windows: Sequence[Window], texts: Sequence[tuple[int, ...]], options: DecodeOptions
    ) -> list[TextScore]:
        """Score texts that are not empty: all of them in one pass, padded at their ends; the decoder is causal."""
        if not windows:
            return []
        encoded = self._encode(windows, context_frames(windows[0], options))
        languages = self._languages(encoded, options)
        starts = [
            scoring.start(window, language=language.code, options=options, vocabulary=self._vocabulary)
            for window, language in zip(windows, languages, strict=True)
        ]
        inputs = [[*start, *text[:-1]] for start, text in zip(starts, texts, strict=True)]
        longest = max(map(len, inputs))
        padded = self._tokens([row + row[-1:] * (longest - len(row)) for row in inputs])
        hidden = self._decoder.prefill(self._decoder.begin(encoded, rows=1, positions=longest), padded)
        scores = []
        for start, text, states in zip(starts, texts, hidden, strict=True):
            logits = self._decoder.logits(states[len(start) - 1 : len(start) - 1 + len(text)])
            probabilities = torch.softmax(logits[:, : self._vocabulary.eot].double(), dim=-1)
            wanted = probabilities.gather(1, self._tokens(text)[:, None])[:, 0]
            scores.append(scoring.finish(text, wanted.tolist()))
        return scores

    def _transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        encoded = self._encode(windows, context_frames(windows[0], options))
        languages = self._languages(encoded, options)
        starts = starts_of(windows, languages, options=options, vocabulary=self._vocabulary)

        def decode(indices: Sequence[int], temperature: float) -> list[DecodingResult]:
            return self._decode(encoded, windows, starts, indices, temperature=temperature, options=options)

        accepted = decode_with_fallback(len(windows), options=options, decode=decode)
        return results_of(windows, languages, accepted, vocabulary=self._vocabulary)

    def _languages(self, encoded: torch.Tensor, options: DecodeOptions) -> list[WindowLanguage]:
        """The language of each window: the requested one, or the one detected after start-of-transcript."""
        if options.language != AUTO:
            return [WindowLanguage(options.language, ())] * len(encoded)
        cache = self._decoder.begin(encoded, rows=1, positions=1)
        states = self._decoder.prefill(cache, self._tokens([[self._vocabulary.sot]] * len(encoded)))
        codes = self._vocabulary.languages
        logits = self._decoder.logits(states[:, 0])[:, list(codes.values())]
        rows = torch.softmax(logits, dim=-1).tolist()
        return [most_likely(dict(zip(codes, row, strict=True))) for row in rows]

    def _decode(
        self,
        encoded: torch.Tensor,
        windows: Sequence[Window],
        starts: Sequence[tuple[int, ...]],
        indices: Sequence[int],
        *,
        temperature: float,
        options: DecodeOptions,
    ) -> list[DecodingResult]:
        """Decode the windows `indices` at one temperature, those with equally long prompts together."""
        decoded: dict[int, DecodingResult] = {}
        for places in alike(len(starts[index]) for index in indices).values():
            members = [indices[place] for place in places]
            own = encoded if len(members) == len(encoded) else encoded[members]
            rows = [windows[index] for index in members], [starts[index] for index in members]
            results = self._search(own, *rows, temperature=temperature, options=options)
            decoded.update(zip(members, results, strict=True))
        return [decoded[index] for index in indices]

    def _search(
        self,
        encoded: torch.Tensor,
        windows: Sequence[Window],
        starts: Sequence[tuple[int, ...]],
        *,
        temperature: float,
        options: DecodeOptions,
    ) -> list[DecodingResult]:
        vocabulary, decoder, start = self._vocabulary, self._decoder, starts[0]
        looks = LOOK_EVERY if self._device.type == "cuda" else 1
        limits = SearchLimits(prompts.room(start, options), vocabulary.eot, looks)
        rows = options.best_of if temperature > 0.0 else options.beam_size
        cache = decoder.begin(encoded, rows=rows, positions=len(start) + limits.room)
        states = decoder.prefill(cache, self._tokens(starts))
        at_start = decoder.logits(states[:, start.index(vocabulary.sot)])
        no_speech = torch.softmax(at_start, dim=-1)[:, vocabulary.no_speech].tolist()
        logits, rules = decoder.logits(states[:, -1]), Rules(vocabulary, options, device=self._device)
        if temperature > 0.0:
            dice = Dice(windows, temperature=temperature, candidates=rows, room=limits.room, device=self._device)
            candidates = one_by_one(decoder, cache, logits, rules, dice, limits)
        elif rows > 1:
            candidates = beam(decoder, cache, logits, rules, limits)
        else:
            candidates = one_by_one(decoder, cache, logits, rules, Likeliest(), limits)
        return [
            DecodingResult.of(
                vocabulary.without_specials(best.tokens),
                generated=len(best.tokens),
                total_logprob=best.total_logprob,
                no_speech_prob=silent,
                text=vocabulary.decode(best.tokens),
            )
            for best, silent in zip(candidates, no_speech, strict=True)
        ]

    def _tokens(self, tokens: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(tokens, device=self._device)


def window_bytes(*, width: int, layers: int, vocabulary: int, frames: int, rows: int, value_bytes: int) -> int:
    """The memory that a window takes while it is decoded, in bytes: 660 MB for large-v2 with 5 beams in float16.

    Keys and values of its audio and of its rows, for as many tokens as the context has; logits in float32, of which
    five copies live at once; and what the encoder holds at its widest.
    """
    audio, tokens = frames // 2, prompts.CONTEXT
    keys = 2 * layers * width * value_bytes * (audio + rows * tokens)
    return keys + rows * vocabulary * 4 * 5 + 12 * audio * width * value_bytes


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
