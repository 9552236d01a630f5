"""Whisper's vocabulary: special tokens looked up by name, text in and out, what may never be generated."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from k2d.errors import ModelError
from k2d.schema import WINDOW_S
from k2d.whisper.features import TOKEN_S

FIRST_MERGED = 256  # ids below are single bytes
REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are no character

# Whisper never writes what nobody says: brackets, markup, speaker dashes, notes (openai/whisper, tokenizer.py)
SYMBOLS: tuple[str, ...] = tuple('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
SYMBOL_RUNS = ("<<", ">>", "<<<", ">>>", "--", "---", "((", "))", "(((", ")))", "[[", "]]", "{{", "}}", "♪♪", "♪♪♪")
OPENINGS = ("-(", "-[", "('", '("')
NOTES = tuple("♩♪♫♬♭♮♯")  # several tokens each: the first is shared by symbols nobody says either
WORD_INNER = ("-", "'")  # allowed inside words, not at their start


class Vocabulary:
    """Text and token ids of one model.

    Attributes name token ids: `sot`, `eot`, `transcribe`, `translate`, `sot_prev`, `sot_lm`, `no_speech`,
    `no_timestamps`, `timestamp_begin`; `languages` maps codes to ids; `suppressed` may never be generated,
    `suppressed_first` not as the first token; `size` counts all ids, timestamps included.

    Raises:
        ModelError: the file is no tokenizer, or not a multilingual Whisper's.
    """

    def __init__(self, file: Path) -> None:
        try:
            document = json.loads(file.read_text("utf-8"))
            kind = document["model"]["type"]  # first: the library raises bare Exception for a damaged file
            mend(document["model"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{file} is no tokenizer: {error}", hint="fetch the model again") from error
        if kind != "BPE":
            raise ModelError(f"{file} holds a {kind} tokenizer, not Whisper's", hint="name a Whisper model")
        self._tokenizer = Tokenizer.from_str(json.dumps(document))
        self._file = file
        self.eot = self._special("endoftext")
        self.sot = self._special("startoftranscript")
        self.translate = self._special("translate")
        self.transcribe = self._special("transcribe")
        self.sot_lm = self._special("startoflm")
        self.sot_prev = self._special("startofprev")
        self.no_speech = self._special("nospeech", "nocaptions")
        self.no_timestamps = self._special("notimestamps")
        self.timestamp_begin = self.no_timestamps + 1
        self.size = self.timestamp_begin + round(WINDOW_S / TOKEN_S) + 1  # 0.00 … 30.00
        codes = (str(self._tokenizer.id_to_token(id)) for id in range(self.sot + 1, self.translate))
        self.languages = {code[2:-2]: id for id, code in enumerate(codes, self.sot + 1)}
        self.suppressed = self._suppressed()
        self.suppressed_first = (*self.encode(" "), self.eot)

    def _special(self, *names: str) -> int:
        for name in names:
            id = self._tokenizer.token_to_id(f"<|{name}|>")
            if id is not None:
                return int(id)
        raise ModelError(f"{self._file} has no <|{names[0]}|>", hint="the model must be a multilingual Whisper")

    def _suppressed(self) -> tuple[int, ...]:
        specials = {self.transcribe, self.translate, self.sot, self.sot_prev, self.sot_lm, self.no_speech}
        starts = {self.encode(" " + mark)[0] for mark in WORD_INNER}
        spellings = [
            self.encode(space + symbol) for symbol in (*SYMBOLS, *SYMBOL_RUNS, *OPENINGS) for space in ("", " ")
        ]
        single = {tokens[0] for tokens in spellings if len(tokens) == 1}
        notes = {self.encode(space + note)[0] for note in NOTES for space in ("", " ")}
        return tuple(sorted(specials | starts | single | notes))

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def without_specials(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Text and timestamp tokens only. Nothing forbids the model a stray language token; it means nothing, and as
        part of the previous text it would redirect the next window."""
        return tuple(token for token in tokens if token < self.eot or token >= self.timestamp_begin)

    def decode(self, tokens: tuple[int, ...] | list[int]) -> str:
        """Text of the tokens below `eot`. Bytes that form no character are left out: a label must be valid text."""
        text: str = self._tokenizer.decode([token for token in tokens if token < self.eot])
        return text.replace(REPLACEMENT, "")


def mend(model: dict[str, Any]) -> None:
    """Put the first merge back where it is missing.

    Some published Whisper tokenizers lack it, taken for a header line when the file was converted: " the" then becomes
    " " and "the", a spelling that Whisper never saw. Decoding does not need merges, so only prompts and scores suffer.
    """
    if model["type"] != "BPE":
        return
    first = next((token for token, id in model["vocab"].items() if id == FIRST_MERGED), "")
    merges = model["merges"]
    joined = {merge.replace(" ", "") if isinstance(merge, str) else "".join(merge) for merge in merges}
    if len(first) == 2 and first not in joined:  # the first merge joins two bytes
        merges.insert(0, f"{first[0]} {first[1]}" if not merges or isinstance(merges[0], str) else list(first))
