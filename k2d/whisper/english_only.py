"""Recognises English-only Whisper models (`….en`) by their tokenizer."""

import json
from pathlib import Path
from typing import Final

# The English vocabulary is GPT-2's, whose end-of-text is token 50256; the multilingual one has one more token before it
# (openai/whisper, tokenizer.py)
ENGLISH_EOT: Final = 50_256


def is_english_only(tokenizer: Path) -> bool:
    """Whether a tokenizer.json is an English-only Whisper's; False where it cannot be read: the engine says why."""
    try:
        added = json.loads(tokenizer.read_text("utf-8"))["added_tokens"]
        return any(token["content"] == "<|endoftext|>" and token["id"] == ENGLISH_EOT for token in added)
    except (OSError, ValueError, KeyError, TypeError):
        return False
