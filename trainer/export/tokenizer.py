"""Writes the tokenizer's files that each tool reads, all from one tokenizer.json."""

import json
from pathlib import Path
from typing import Any, Final

from k2d.whisper.prompts import CONTEXT
from k2d.whisper.vocabulary import mend

END: Final = "<|endoftext|>"
FIRST_LINE: Final = "#version: 0.2"  # of merges.txt, as byte-level BPE files have it since GPT-2


def write_tokenizer(source: Path, folder: Path) -> None:
    """Write the files that transformers (both its tokenizer classes), faster-whisper and converters read.

    The first merge, which some published Whisper tokenizers lack, is added (`k2d.whisper.vocabulary.mend`).

    Args:
        source: a tokenizer.json.
        folder: where the files are written.
    """
    document = json.loads(source.read_text("utf-8"))
    mend(document["model"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in document["model"]["merges"]]
    added = {token["content"]: token["id"] for token in document["added_tokens"]}
    special = [token["content"] for token in document["added_tokens"] if token["special"]]
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END)
    _dump(folder / "tokenizer.json", document)
    _dump(folder / "vocab.json", document["model"]["vocab"])
    _dump(folder / "added_tokens.json", {token: id for token, id in added.items() if token != END})
    _dump(folder / "special_tokens_map.json", {**names, "additional_special_tokens": special})
    (folder / "merges.txt").write_text("\n".join([FIRST_LINE, *merges, ""]), "utf-8")
    settings = {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "model_max_length": CONTEXT,
        "add_prefix_space": False,
        "errors": "replace",
        **names,
        "additional_special_tokens": special,
        "added_tokens_decoder": {str(token["id"]): _plain(token) for token in document["added_tokens"]},
    }
    _dump(folder / "tokenizer_config.json", settings)


def _plain(token: dict[str, Any]) -> dict[str, Any]:
    return {key: token[key] for key in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")}


def _dump(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1), "utf-8")
