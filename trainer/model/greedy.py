"""Greedy transcripts of many rows at once with the student that is being trained, for validation."""

from typing import Any, Final

import torch
from transformers import DynamicCache, EncoderDecoderCache

from k2d.whisper.prompts import CONTEXT, language_token
from k2d.whisper.vocabulary import Vocabulary
from trainer.model.distiller import PromptEmbedding

MAX_TOKENS: Final = CONTEXT // 2  # half of the decoder's positions, as in the engines


@torch.no_grad()
def transcribe(decoder: Any, encoded: torch.Tensor, *, language: str, vocabulary: Vocabulary) -> list[str]:
    """The text of each row, without timestamps.

        texts = transcribe(student.model.decoder, encoded, language="zh-en", vocabulary=vocabulary)

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
    weight, embed = decoder.embed_tokens.weight, PromptEmbedding(vocabulary)  # (vocabulary, width)
    suppressed = torch.zeros(weight.shape[0], dtype=torch.bool, device=weight.device)  # (vocabulary,)
    suppressed[vocabulary.eot + 1 :] = True
    suppressed[list(vocabulary.suppressed)] = True
    suppressed_first = suppressed.clone()
    suppressed_first[list(vocabulary.suppressed_first)] = True
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    tokens = torch.tensor(prompt, device=weight.device).expand(len(encoded), -1)  # (B, 4), then (rows going on, 1)
    texts: list[list[int]] = [[] for _ in range(len(encoded))]
    going_on = list(range(len(encoded)))  # rows that have not ended; those that have leave the batch
    for step in range(MAX_TOKENS):
        hidden = decoder(
            inputs_embeds=embed(weight, tokens),
            encoder_hidden_states=encoded,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]  # (rows going on, width)
        logits = hidden @ weight.to(hidden.dtype).T  # (rows going on, vocabulary)
        chosen = logits.masked_fill(suppressed if step else suppressed_first, float("-inf")).argmax(dim=-1)
        stay = [place for place, token in enumerate(chosen.tolist()) if token != vocabulary.eot]
        for place in stay:
            texts[going_on[place]].append(int(chosen[place]))
        if not stay:
            break
        if len(stay) < len(going_on):
            kept = torch.tensor(stay, device=weight.device)
            cache.batch_select_indices(kept)
            encoded, chosen = encoded[kept], chosen[kept]
            going_on = [going_on[place] for place in stay]
        tokens = chosen[:, None]
    return [vocabulary.decode(row).strip() for row in texts]
