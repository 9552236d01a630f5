"""Greedy transcripts of many rows at once with the model that is being trained, for validation."""

from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache

from k2d.whisper.prompts import CONTEXT, language_token
from k2d.whisper.vocabulary import Vocabulary
from trainer.model.distiller import Prompted

MOST_TOKENS = CONTEXT // 2  # as the engines


@torch.no_grad()
def transcribe(decoder: Any, encoded: torch.Tensor, *, language: str, vocabulary: Vocabulary) -> list[str]:
    """The text of each row, without timestamps.

    Args:
        decoder: a Whisper decoder whose output is tied to its embeddings.
        encoded: the encoder's output, shape (B, 1500, width).
    """
    prompt = [
        vocabulary.sot,
        language_token(language, vocabulary=vocabulary),
        vocabulary.transcribe,
        vocabulary.no_timestamps,
    ]
    weight, embed = decoder.embed_tokens.weight, Prompted(vocabulary)
    never = torch.zeros(weight.shape[0], dtype=torch.bool, device=weight.device)
    never[vocabulary.eot + 1 :] = True
    never[list(vocabulary.suppressed)] = True
    first = never.clone()
    first[list(vocabulary.suppressed_first)] = True
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    tokens = torch.tensor(prompt, device=weight.device).expand(len(encoded), -1)
    written: list[list[int]] = [[] for _ in range(len(encoded))]
    going = list(range(len(encoded)))  # rows that have not ended; the others leave the batch
    for step in range(MOST_TOKENS):
        hidden = decoder(
            inputs_embeds=embed(weight, tokens),
            encoder_hidden_states=encoded,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        logits = hidden @ weight.to(hidden.dtype).T
        chosen = logits.masked_fill(never if step else first, float("-inf")).argmax(dim=-1)
        stay = [place for place, token in enumerate(chosen.tolist()) if token != vocabulary.eot]
        for place in stay:
            written[going[place]].append(int(chosen[place]))
        if not stay:
            break
        if len(stay) < len(going):
            kept = torch.tensor(stay, device=weight.device)
            cache.batch_select_indices(kept)
            encoded, chosen = encoded[kept], chosen[kept]
            going = [going[place] for place in stay]
        tokens = chosen[:, None]
    return [vocabulary.decode(row).strip() for row in written]
