"""Decoder positions of a frozen dataset that are padding: as training cuts steps, and without sorting.

    K2D_STORE=store python bench/padding.py NAME [--batch 32 256] [--micro-batch 8 32] [--steps 50]

A micro-batch is padded to its longest row. Training sorts the rows of a step by their length in tokens before it cuts
them into micro-batches (`trainer.data.batch.cut_by_length`). No audio is decoded.
"""

import argparse
from collections.abc import Iterable
from itertools import islice

import numpy as np
import numpy.typing as npt

from k2d.datasets.read import FrozenDataset
from k2d.settings import load
from k2d.store import Lake
from k2d.whisper.resolve import resolve
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import IGNORED
from trainer.data.stream import TrainingData
from trainer.options import Recipe

Lengths = npt.NDArray[np.int64]  # of a step's rows, in tokens


def lengths_of(dataset: FrozenDataset, recipe: Recipe, *, vocabulary: Vocabulary, steps: int) -> list[Lengths]:
    """How long each row of the first steps is, in no order."""
    draws = np.random.default_rng(0)
    recipe = recipe.model_copy(update={"micro_batch": recipe.batch})
    with TrainingData(dataset, recipe, vocabulary=vocabulary, mels=80) as data:
        stream = islice(data.steps(0, needs_features=lambda _: False), steps)
        # the last target of a row is its end
        return [
            draws.permutation(micro.targets.shape[1] - (micro.targets[:, ::-1] != IGNORED).argmax(axis=1))
            for step in stream
            for micro in step
        ]


def positions(steps: Iterable[Lengths], *, micro_batch: int) -> int:
    """Decoder positions with padding."""
    cuts = (step[first : first + micro_batch] for step in steps for first in range(0, len(step), micro_batch))
    return sum(len(cut) * int(cut.max()) for cut in cuts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="in the store that K2D_STORE names")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--micro-batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    settings = load()
    model = resolve("packaged:whisper-base", engine="ctranslate2", cache=settings.cache, allow_downloads=True)
    vocabulary = Vocabulary(model.path / "tokenizer.json")
    dataset = FrozenDataset(Lake(settings.store), options.dataset)
    print(
        "| batch | micro-batch | tokens a row, most | unsorted: positions a row | padding | sorted | padding | saved |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for batch in options.batch:
        steps = lengths_of(dataset, Recipe(batch=batch), vocabulary=vocabulary, steps=options.steps)
        rows = np.concatenate(steps)
        for micro_batch in options.micro_batch:
            unsorted = positions(steps, micro_batch=micro_batch)
            in_order = positions([np.sort(step)[::-1] for step in steps], micro_batch=micro_batch)
            print(
                f"| {batch} | {micro_batch} | {rows.mean():.0f}, {rows.max()} | {unsorted / len(rows):.0f} "
                f"| {1 - rows.sum() / unsorted:.0%} | {in_order / len(rows):.0f} | {1 - rows.sum() / in_order:.0%} "
                f"| {1 - in_order / unsorted:.0%} |"
            )


if __name__ == "__main__":
    main()
