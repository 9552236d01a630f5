"""The attention heads that word timestamps are read from. Pure."""

from collections.abc import Iterable, Sequence


def alignment_heads(known: Iterable[Sequence[int]] | None, *, layers: Sequence[int], heads: int) -> list[list[int]]:
    """The known heads of a model's layers, as [layer, head]; without any, all heads of the last half of its layers.

    A head of a layer that does not exist makes CTranslate2 4.8 access memory it does not own, and no heads at all make
    transformers refuse word timestamps. The default is OpenAI's (openai/whisper, model.py, `set_alignment_heads`).

        alignment_heads([[0, 1], [2, 0]], layers=[0, 3], heads=8)  # [[0, 1]]: layers 0 and 3 were kept of the teacher

    Args:
        known: heads as [layer, head], of the model the layers come from.
        layers: that model's number of each layer of this one; `range(n)` where they are its own.
        heads: how many a layer has.
    """
    kept = [[layers.index(layer), int(head)] for layer, head in known or () if layer in layers and head < heads]
    return kept or [[layer, head] for layer in range(len(layers) // 2, len(layers)) for head in range(heads)]
