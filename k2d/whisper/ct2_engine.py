"""Whisper in CTranslate2: the default engine, on CPU and CUDA, without torch."""

import hashlib
import json
import mmap
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt
import structlog

from k2d.errors import ModelError
from k2d.schema import AUTO, DecodeOptions, ModelInfo, TextScore, Window, WindowResult
from k2d.whisper import ct2_file, prompts, scoring
from k2d.whisper.engine import ANOTHER_KIND, Encoding, model_errors
from k2d.whisper.fallback import Draft, decode_with_fallback
from k2d.whisper.features import TOKEN_S, log_mel
from k2d.whisper.ladder import Ladder, Search
from k2d.whisper.languages import WindowLanguage, detected
from k2d.whisper.resolve import ResolvedModel
from k2d.whisper.timestamps import finish
from k2d.whisper.vocabulary import Vocabulary

SIDE_FILES = ("config.json", "vocabulary.json", "vocabulary.txt", "preprocessor_config.json")
# texts are filled up to a multiple of it: half of it is wasted, on average, and most chunks share a few widths
FILLED = 16
HEARD = 16  # windows whose encoder output is remembered: 3 MB each for base, 4 MB for large in half precision
ALIGNED_FRAMES = 64  # of 3000: the alignment that comes with a score is not used, so little of it is computed

log = structlog.get_logger()


class CTranslate2Engine:
    """One model in memory, in one precision, on one device.

    On a CPU in int8 a window's result is bit for bit the same alone and in any batch (docs/adr/0002).
    """

    def __init__(self, resolved: ResolvedModel, *, device: str, compute_type: str, threads: int) -> None:
        """Load the weights; the mixed zh/en row is written into them in memory, never on disk.

        Raises:
            ModelError: damaged weights, or a precision or device that is not there.
        """
        started = time.monotonic()
        self._heard: dict[bytes, npt.NDArray[Any]] = {}  # encoder output of the last windows, oldest first
        self._vocabulary = Vocabulary(resolved.path / "tokenizer.json")
        device, why_device = _device(device)
        kind, why_kind = _compute_type(compute_type, device)
        self._threads = threads or _cores()
        self._model: Any = _load(
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
        with self._working():
            return self._transcribe(windows, options) if windows else []

    def score(self, windows: Sequence[Window], texts: Sequence[str], options: DecodeOptions) -> list[TextScore]:
        spelled = scoring.read(windows, texts, options, vocabulary=self._vocabulary)
        said = [index for index, tokens in enumerate(spelled) if tokens]
        scores = [scoring.finish((), ())] * len(windows)
        with self._working():
            found = self._score([windows[index] for index in said], [spelled[index] for index in said], options)
        for index, score in zip(said, found, strict=True):
            scores[index] = score
        return scores

    def encode(self, windows: Sequence[Window]) -> Encoding:
        for window in windows:
            self.check(window, DecodeOptions())
        with self._working():
            return self._encode(windows).array() if windows else np.empty((0, 0, 0), np.float16)

    def close(self) -> None:
        if self._model is not None:
            self._model.unload_model()
            self._model = None
            self._heard.clear()

    def _working(self) -> AbstractContextManager[None]:
        return model_errors(self._info.reference, is_open=self._model is not None)

    def _encode(self, windows: Sequence[Window]) -> "Encoded":
        """What the encoder makes of some windows; those heard a moment ago are not heard again.

        A validator decodes a window and then scores a text for it: that is one encoder pass, not two.
        """
        names = [hashlib.blake2b(window.samples.tobytes(), digest_size=16).digest() for window in windows]
        if all(name in self._heard for name in names):
            return Encoded(ctranslate2.StorageView.from_array(np.stack([self._heard[name] for name in names])))
        features = np.stack([log_mel(window.samples, mels=self._model.n_mels) for window in windows])
        encoded = Encoded(self._model.encode(ctranslate2.StorageView.from_array(features), to_cpu=True))
        if encoded.all.dtype != ctranslate2.DataType.bfloat16:  # numpy has no such type
            for name, row in zip(names, np.array(encoded.all), strict=True):
                self._heard[name] = row
            while len(self._heard) > HEARD:
                del self._heard[next(iter(self._heard))]
        return encoded

    def _transcribe(self, windows: Sequence[Window], options: DecodeOptions) -> list[WindowResult]:
        encoded = self._encode(windows)
        languages = self._languages(encoded, options)
        initial = prompts.initial_tokens(options, vocabulary=self._vocabulary)
        starts = [
            prompts.build(window, language=heard.code, initial=initial, options=options, vocabulary=self._vocabulary)
            for window, heard in zip(windows, languages, strict=True)
        ]

        def search(indices: Sequence[int], how: Search) -> list[Draft]:
            return self._search(encoded, starts, indices=indices, how=how, options=options)

        ladder = Ladder(options, search=search)
        accepted = decode_with_fallback(len(windows), options=options, decode=ladder.decode)
        return [
            finish(
                draft,
                temperature=temperature,
                language=heard.code,
                language_probs=heard.probs,
                vocabulary=self._vocabulary,
                samples=len(window.samples),
            )
            for window, heard, (draft, temperature) in zip(windows, languages, accepted, strict=True)
        ]

    def _languages(self, encoded: "Encoded", options: DecodeOptions) -> list[WindowLanguage]:
        """The language of each window: as asked, or as heard."""
        if options.language != AUTO:
            return [WindowLanguage(options.language, ())] * encoded.count
        return [detected({token[2:-2]: p for token, p in row}) for row in self._model.detect_language(encoded.all)]

    def _search(
        self,
        encoded: "Encoded",
        starts: Sequence[tuple[int, ...]],
        *,
        indices: Sequence[int],
        how: Search,
        options: DecodeOptions,
    ) -> list[Draft]:
        """Decode some windows. Prompts of equal length go together: CTranslate2 asks for it."""
        by_length: dict[int, list[int]] = {}
        for index in indices:
            by_length.setdefault(len(starts[index]), []).append(index)
        drafts: dict[int, Draft] = {}
        for members in by_length.values():
            room = prompts.room(starts[members[0]], options)
            results = self._model.generate(
                encoded.rows(members),
                [list(starts[index]) for index in members],
                max_length=max(2 * room, len(starts[members[0]]) + room),  # it takes min(half, what the prompt leaves)
                return_scores=True,
                return_no_speech_prob=True,
                suppress_blank=True,
                suppress_tokens=list(self._vocabulary.suppressed),
                max_initial_timestamp_index=round(options.max_initial_timestamp_s / TOKEN_S),
                beam_size=how.beams,
                no_repeat_ngram_size=how.unrepeated,
            )
            drafts.update(zip(members, map(self._draft, results), strict=True))
        return [drafts[index] for index in indices]

    def _score(
        self, windows: Sequence[Window], spelled: Sequence[tuple[int, ...]], options: DecodeOptions
    ) -> list[TextScore]:
        """Score texts that are not empty, those with one prompt and about one length together.

        Each is filled up to a multiple of `FILLED`, which nothing before can see: so the shapes that are computed
        depend on the text alone, and with them the last bits of its result.
        """
        if not windows:
            return []
        encoded = self._encode(windows)
        languages = self._languages(encoded, options)
        groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for index, (window, heard) in enumerate(zip(windows, languages, strict=True)):
            start = scoring.start(window, language=heard.code, options=options, vocabulary=self._vocabulary)
            width = min(-(-len(spelled[index]) // FILLED) * FILLED, scoring.room(start))
            groups.setdefault((start, width), []).append(index)
        scores: dict[int, TextScore] = {}
        for (start, width), members in groups.items():
            results = self._model.align(
                encoded.rows(members),
                list(start[:-1]),  # it adds "no timestamps" itself
                [[*spelled[index], *spelled[index][-1:] * (width - len(spelled[index]))] for index in members],
                ALIGNED_FRAMES,
            )
            for index, result in zip(members, results, strict=True):
                scores[index] = scoring.finish(spelled[index], result.text_token_probs[: len(spelled[index])])
        return [scores[index] for index in range(len(windows))]

    def _draft(self, result: Any) -> Draft:
        tokens = result.sequences_ids[0]
        return Draft.of(
            self._vocabulary.without_specials(tokens),
            generated=len(tokens),
            total_logprob=result.scores[0] * len(tokens),  # CTranslate2 reports the mean without end-of-text
            no_speech_prob=result.no_speech_prob,
            text=self._vocabulary.decode(tokens),
        )


class Encoded:
    """A batch's encoder output, from which fallback takes the rows it needs."""

    def __init__(self, rows: Any) -> None:
        self.all = rows  # a StorageView of shape (windows, 1500, width)
        self.count = int(rows.shape[0])

    def array(self) -> Encoding:
        """All rows in float16, whatever the engine computes in."""
        perturbation = self.all
        if perturbation.dtype == ctranslate2.DataType.bfloat16:  # numpy has no such type
            perturbation = perturbation.to(ctranslate2.DataType.float32)
        return np.array(perturbation).astype(np.float16)

    def rows(self, indices: Sequence[int]) -> Any:
        """The rows of some windows, in that order, as a StorageView."""
        if list(indices) == list(range(self.count)):
            return self.all
        perturbation = self.all
        if (
            perturbation.dtype == ctranslate2.DataType.bfloat16
        ):  # numpy has no such type; float32 holds its values exactly
            exact = np.array(perturbation.to(ctranslate2.DataType.float32))[list(indices)]
            return ctranslate2.StorageView.from_array(exact).to(ctranslate2.DataType.bfloat16)
        return ctranslate2.StorageView.from_array(np.ascontiguousarray(np.array(perturbation)[list(indices)]))


def _device(asked: str) -> tuple[str, str]:
    if asked != "auto":
        return asked, "as set"
    found = ctranslate2.get_cuda_device_count()
    return ("cuda", f"{found} found") if found else ("cpu", "no CUDA device")


def _compute_type(asked: str, device: str) -> tuple[str, str]:
    if asked != "auto":
        return asked, "as set"
    return ("float16", "usual on CUDA") if device == "cuda" else ("int8", "fastest on a CPU, and exactly repeatable")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load(folder: Path, *, vocabulary: Vocabulary, device: str, compute_type: str, threads: int) -> Any:
    """Load the model with its mixed row from memory; the folder stays as it is."""
    file = folder / "model.bin"
    sources = tuple(vocabulary.languages[code] for code in prompts.MIXED_CODES)
    try:
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            perturbation = memoryview(data)
            try:
                weights = ct2_file.with_mixed_row(perturbation, file=file, sources=sources, target=vocabulary.sot_lm)
            finally:
                perturbation.release()
        files = {name: (folder / name).read_bytes() for name in SIDE_FILES if (folder / name).is_file()}
        files["config.json"] = _config(files.get("config.json", b"{}"))
        model = ctranslate2.models.Whisper(
            str(folder),
            device=device,
            compute_type=compute_type,
            intra_threads=threads,
            files={"model.bin": weights, **files},
        )
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise ModelError(f"{file} cannot be loaded: {error}", hint=ANOTHER_KIND) from error
    if not model.is_multilingual:
        raise ModelError(f"{folder} is an English-only Whisper", hint="name a multilingual model")
    return model


def _config(text: bytes) -> bytes:
    """The model's configuration with one alignment head that every model has.

    `score` goes through CTranslate2's alignment, whose result it does not use. Without heads it refuses; with heads of
    layers that a distilled model no longer has it writes where it must not.
    """
    return json.dumps(json.loads(text) | {"alignment_heads": [[0, 0]]}).encode()
