"""Whisper in CTranslate2: the default engine, for CPU and CUDA; needs no torch."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import ctranslate2
import numpy as np
import numpy.typing as npt
import structlog

from k2d.schema import AUTO, DecodeOptions, ModelInfo, TextScore, Window, WindowResult
from k2d.whisper import prompts, scoring
from k2d.whisper.allocator import keep_freed_memory
from k2d.whisper.batches import alike, results_of, starts_of
from k2d.whisper.ct2_load import available_cores, choose_compute_type, choose_device, load_model
from k2d.whisper.deterministic_fallback import DeterministicFallback, Search
from k2d.whisper.engine import Encoding, engine_errors
from k2d.whisper.fallback import DecodingResult, decode_with_fallback
from k2d.whisper.features import FRAMES, TOKEN_S, context_frames, log_mel
from k2d.whisper.languages import WindowLanguage, most_likely
from k2d.whisper.resolve import ResolvedModel
from k2d.whisper.vocabulary import Vocabulary

# Texts are padded to a multiple of this many tokens: on average half of it is wasted; most texts share a few lengths
PAD_MULTIPLE: Final = 16
CACHED_WINDOWS: Final = 16  # windows whose encoder output is kept: 3 MB each for base, 4 MB for large in half precision
CPU_WINDOWS: Final = 4  # a CPU works on so many windows at once: more are not faster, and take memory (docs/LOG.md)
ALIGNED_FRAMES: Final = 64  # of 3000: `align` also computes an alignment, which is not used, so few frames are enough

log = structlog.get_logger()


class CTranslate2Engine:
    """A Whisper model in CTranslate2, in one precision on one device (`k2d.whisper.engine.Engine`).

    On a CPU in int8 a window's result is the same bit for bit, alone or in any batch (docs/adr/0002).
    """

    def __init__(self, resolved: ResolvedModel, *, device: str, compute_type: str, threads: int) -> None:
        """Load the weights and add the mixed zh/en row in memory; the files are not changed.

        Raises:
            ModelError: the weights are damaged, or the precision or device is not available.
        """
        started = time.monotonic()
        # encoder output of the last windows by the hash of their samples, oldest first
        self._encoded: dict[bytes, npt.NDArray[Any]] = {}
        self._vocabulary = Vocabulary(resolved.path / "tokenizer.json")
        device, why_device = choose_device(device)
        kind, why_kind = choose_compute_type(compute_type, device)
        self._threads = threads or available_cores()
        self._at_once = CPU_WINDOWS if device == "cpu" else None  # None: the whole batch
        allocator = keep_freed_memory() if device == "cpu" else ""
        self._model: Any = load_model(
            resolved.path, vocabulary=self._vocabulary, device=device, compute_type=kind, threads=self._threads
        )
        self._info = ModelInfo(
            reference=resolved.reference,
            digest=resolved.digest,
            engine="ctranslate2",
            compute_type=str(self._model.compute_type),
            device=device,
        )
        log.info(
            "engine ready",
            model=resolved.reference,
            engine="ctranslate2",
            device=f"{device} ({why_device})",
            compute_type=f"{self._info.compute_type} ({why_kind})",
            threads=f"{self._threads} ({'as set' if threads else 'all cores'})",
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

    def transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        for window in windows:
            self.check(window, options)
        with engine_errors(self._info, closed=self._model is None):
            results: dict[int, WindowResult] = {}
            for part in self._parts(windows, options):
                results.update(zip(part, self._transcribe([windows[at] for at in part], options), strict=True))
        return [results[at] for at in range(len(windows))]

    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        text_tokens = scoring.read(windows, texts, options, vocabulary=self._vocabulary)
        scores = [scoring.finish((), ())] * len(windows)
        with engine_errors(self._info, closed=self._model is None):
            for part in self._parts(windows, options):
                nonempty = [at for at in part if text_tokens[at]]
                computed = self._score([windows[at] for at in nonempty], [text_tokens[at] for at in nonempty], options)
                for index, score in zip(nonempty, computed, strict=True):
                    scores[index] = score
        return scores

    def encode(self, windows: Sequence[Window]) -> Encoding:
        for window in windows:
            self.check(window, DecodeOptions())
        with engine_errors(self._info, closed=self._model is None):
            parts = self._parts(windows, DecodeOptions())
            encoded = [self._encode([windows[at] for at in part], FRAMES).array() for part in parts]
        return np.concatenate(encoded) if encoded else np.empty((0, 0, 0), np.float16)

    def close(self) -> None:
        if self._model is not None:
            self._model.unload_model()
            self._model = None
            self._encoded.clear()

    def _parts(self, windows: Sequence[Window], options: DecodeOptions) -> Iterator[Sequence[int]]:
        """The windows' indices in parts of as many as are worked on at once, of one length of context each."""
        size = self._at_once or max(1, len(windows))
        by_length = alike(context_frames(window, options) for window in windows)
        return (same[start : start + size] for same in by_length.values() for start in range(0, len(same), size))

    def _encode(self, windows: Sequence[Window], frames: int) -> "EncoderOutput":
        """The encoder's output for some windows, from the cache if all of them are in it.

        A validator decodes a window and then scores a text for it; with the cache that takes one encoder pass.
        """
        hashes = [
            hashlib.blake2b(window.samples.tobytes(), digest_size=16, salt=frames.to_bytes(2)).digest()
            for window in windows
        ]
        if all(hash_ in self._encoded for hash_ in hashes):
            rows = np.stack([self._encoded[hash_] for hash_ in hashes])
            return EncoderOutput(ctranslate2.StorageView.from_array(rows))
        features = np.stack([log_mel(window.samples, mels=self._model.n_mels)[:, :frames] for window in windows])
        encoded = EncoderOutput(self._model.encode(ctranslate2.StorageView.from_array(features), to_cpu=True))
        if encoded.all.dtype != ctranslate2.DataType.bfloat16:  # numpy has no such type
            for hash_, row in zip(hashes, np.array(encoded.all), strict=True):
                self._encoded[hash_] = row
            while len(self._encoded) > CACHED_WINDOWS:
                del self._encoded[next(iter(self._encoded))]
        return encoded

    def _transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        encoded = self._encode(windows, context_frames(windows[0], options))
        languages = self._languages(encoded, options)
        starts = starts_of(windows, languages, options=options, vocabulary=self._vocabulary)

        def decode(indices: Sequence[int], search: Search) -> list[DecodingResult]:
            return self._search(encoded, starts, indices=indices, search=search, options=options)

        fallback = DeterministicFallback(options, search=decode)
        accepted = decode_with_fallback(len(windows), options=options, decode=fallback.decode)
        return results_of(windows, languages, accepted, vocabulary=self._vocabulary)

    def _languages(self, encoded: "EncoderOutput", options: DecodeOptions) -> list[WindowLanguage]:
        """The language of each window: the requested one, or the detected one."""
        if options.language != AUTO:
            return [WindowLanguage(options.language, ())] * encoded.count
        return [most_likely({token[2:-2]: p for token, p in row}) for row in self._model.detect_language(encoded.all)]

    def _search(
        self,
        encoded: "EncoderOutput",
        starts: Sequence[tuple[int, ...]],
        *,
        indices: Sequence[int],
        search: Search,
        options: DecodeOptions,
    ) -> list[DecodingResult]:
        """Decode the windows `indices`, in batches of equal prompt length, as CTranslate2 requires."""
        decoded: dict[int, DecodingResult] = {}
        for places in alike(len(starts[index]) for index in indices).values():
            members = [indices[place] for place in places]
            room = prompts.room(starts[members[0]], options)
            results = self._model.generate(
                encoded.rows(members),
                [list(starts[index]) for index in members],
                # it generates at most min(max_length / 2, max_length - prompt) tokens
                max_length=max(2 * room, len(starts[members[0]]) + room),
                return_scores=True,
                return_no_speech_prob=True,
                suppress_blank=True,
                suppress_tokens=list(self._vocabulary.suppressed),
                max_initial_timestamp_index=round(options.max_initial_timestamp_s / TOKEN_S),
                beam_size=search.beam_size,
                no_repeat_ngram_size=search.no_repeat_ngram_size,
            )
            decoded.update(zip(members, map(self._decoding_result, results), strict=True))
        return [decoded[index] for index in indices]

    def _score(
        self, windows: Sequence[Window], text_tokens: Sequence[tuple[int, ...]], options: DecodeOptions
    ) -> list[TextScore]:
        """Score texts that are not empty, in batches of equal prompts and about equal lengths.

        Each text is padded at its end to a multiple of `PAD_MULTIPLE`; the decoder is causal, so padding changes no
        score. The tensor shapes, which decide the last bits of a result, then depend on the text alone.
        """
        if not windows:
            return []
        encoded = self._encode(windows, context_frames(windows[0], options))
        languages = self._languages(encoded, options)
        batches: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for index, (window, language) in enumerate(zip(windows, languages, strict=True)):
            start = scoring.start(window, language=language.code, options=options, vocabulary=self._vocabulary)
            width = min(-(-len(text_tokens[index]) // PAD_MULTIPLE) * PAD_MULTIPLE, scoring.room(start))
            batches.setdefault((start, width), []).append(index)
        scores: dict[int, TextScore] = {}
        for (start, width), members in batches.items():
            results = self._model.align(
                encoded.rows(members),
                list(start[:-1]),  # `align` appends "no timestamps" itself
                [
                    [*text_tokens[index], *text_tokens[index][-1:] * (width - len(text_tokens[index]))]
                    for index in members
                ],
                ALIGNED_FRAMES,
            )
            for index, result in zip(members, results, strict=True):
                scores[index] = scoring.finish(text_tokens[index], result.text_token_probs[: len(text_tokens[index])])
        return [scores[index] for index in range(len(windows))]

    def _decoding_result(self, result: Any) -> DecodingResult:
        tokens = result.sequences_ids[0]
        return DecodingResult.of(
            self._vocabulary.without_specials(tokens),
            generated=len(tokens),
            total_logprob=result.scores[0] * len(tokens),  # CTranslate2 divides by the tokens without end-of-text
            no_speech_prob=result.no_speech_prob,
            text=self._vocabulary.decode(tokens),
        )


class EncoderOutput:
    """A batch's encoder output, from which fallback takes the windows it decodes again."""

    def __init__(self, rows: Any) -> None:
        self.all = rows  # a StorageView of shape (windows, 1500, width)
        self.count = int(rows.shape[0])

    def array(self) -> Encoding:
        """All rows in float16, shape (windows, 1500, width)."""
        view = self.all
        if view.dtype == ctranslate2.DataType.bfloat16:  # numpy has no such type
            view = view.to(ctranslate2.DataType.float32)
        return np.array(view).astype(np.float16)

    def rows(self, indices: Sequence[int]) -> Any:
        """The rows of the windows `indices`, in that order, as a StorageView."""
        if list(indices) == list(range(self.count)):
            return self.all
        if self.all.dtype == ctranslate2.DataType.bfloat16:  # numpy has no such type; float32 holds its values exactly
            exact = np.array(self.all.to(ctranslate2.DataType.float32))[list(indices)]
            return ctranslate2.StorageView.from_array(exact).to(ctranslate2.DataType.bfloat16)
        return ctranslate2.StorageView.from_array(np.ascontiguousarray(np.array(self.all)[list(indices)]))
