"""Whisper's vocabulary: encodes and decodes text, and knows the special and the suppressed tokens."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from k2d.errors import ModelError
from k2d.schema import WINDOW_S
from k2d.whisper.english_only import ENGLISH_EOT
from k2d.whisper.features import TOKEN_S

FIRST_MERGED: Final = 256  # ids below are single bytes
REPLACEMENT: Final = "\ufffd"  # decoded from bytes that are not a character

# Whisper suppresses what is not spoken: brackets, markup, speaker dashes, notes (openai/whisper, tokenizer.py)
SYMBOLS: Final[tuple[str, ...]] = tuple('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
RUNS: Final = ("<<", ">>", "<<<", ">>>", "--", "---", "((", "))", "(((", ")))", "[[", "]]", "{{", "}}", "♪♪", "♪♪♪")
OPENINGS: Final = ("-(", "-[", "('", '("')
NOTES: Final = tuple("♩♪♫♬♭♮♯")  # several tokens each; the first one occurs only in symbols
WORD_INNER: Final = ("-", "'")  # allowed within words, not at their start


class Vocabulary:
    """The vocabulary of a model, from its tokenizer.json.

    Token ids: `sot`, `eot`, `transcribe`, `translate`, `sot_prev`, `sot_lm`, `no_speech`, `no_timestamps`,
    `timestamp_begin`. `is_multilingual` is False for an English-only model (`….en`), whose prompts have no language and
    no task. `languages` maps codes to ids. `suppressed` must not be generated, `suppressed_first` not as the first
    token. `size` is the number of ids, including timestamps.

    Raises:
        ModelError: the file is not a tokenizer, or not a Whisper's.
    """

    def __init__(self, file: Path) -> None:
        try:
            document = json.loads(file.read_text("utf-8"))
            kind = document["model"]["type"]  # checked here: the library raises a bare Exception for a damaged file
            mend(document["model"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{file} is not a tokenizer: {error}", hint="fetch the model again") from error
        if kind != "BPE":
            raise ModelError(f"{file} is a {kind} tokenizer, not Whisper's", hint="name a Whisper model")
        self._tokenizer = Tokenizer.from_str(json.dumps(document))
        self._file = file
        self.eot = self._special("endoftext")
        self.is_multilingual = self.eot != ENGLISH_EOT
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
        raise ModelError(f"{self._file} has no <|{names[0]}|>", hint="the model must be a Whisper")

    def _suppressed(self) -> tuple[int, ...]:
        specials = {self.transcribe, self.translate, self.sot, self.sot_prev, self.sot_lm, self.no_speech}
        starts = {self.encode(" " + mark)[0] for mark in WORD_INNER}
        spellings = [self.encode(space + symbol) for symbol in (*SYMBOLS, *RUNS, *OPENINGS) for space in ("", " ")]
        single = {tokens[0] for tokens in spellings if len(tokens) == 1}
        notes = {self.encode(space + note)[0] for note in NOTES for space in ("", " ")}
        return tuple(sorted(specials | starts | single | notes))

    def encode(self, text: str) -> list[int]:
        """The token ids of a text; special tokens are not added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def without_specials(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Only the text and timestamp tokens. A model may generate a stray language token, which has no meaning, and in
        the previous text would change the language of the next window."""
        return tuple(token for token in tokens if token < self.eot or token >= self.timestamp_begin)

    def decode(self, tokens: tuple[int, ...] | list[int]) -> str:
        """The text of the tokens below `eot`. Bytes that are not a character are left out: a label is valid text."""
        text: str = self._tokenizer.decode([token for token in tokens if token < self.eot])
        return text.replace(REPLACEMENT, "")


def mend(model: dict[str, Any]) -> None:
    """Add the first merge to a tokenizer that lacks it.

    Some published Whisper tokenizers lack it: a conversion took it for a header line. " the" then becomes " " and
    "the", tokens that Whisper has never seen in this order. Only prompts and scores are affected: decoding needs no
    merges.
    """
    if model["type"] != "BPE":
        return
    first = next((token for token, id in model["vocab"].items() if id == FIRST_MERGED), "")
    merges = model["merges"]
    joined = {merge.replace(" ", "") if isinstance(merge, str) else "".join(merge) for merge in merges}
    if len(first) == 2 and first not in joined:  # the first merge joins two bytes
        merges.insert(0, f"{first[0]} {first[1]}" if not merges or isinstance(merges[0], str) else list(first))
