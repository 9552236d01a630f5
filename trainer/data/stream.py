"""A frozen dataset as an endless stream of training steps: the same from any step on, in bounded memory.

The order of rows is `trainer.data.order`'s. One thread reads blocks of rows, a pool of threads decodes them and
computes features, or has processes do that, and a few steps are prepared ahead of the caller. Memory holds the current
blocks and those steps. Nothing is written.
"""

from collections import Counter, deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self
from weakref import WeakSet

from k2d.datasets.read import FrozenDataset
from k2d.schema import MIXED
from k2d.whisper.languages import check_language
from k2d.whisper.vocabulary import Vocabulary
from k2d.wording import counted
from trainer.data.batch import MicroBatch, PreparedRow, collate, cut_by_length
from trainer.data.holdout import HoldoutRow, holdout_rows
from trainer.data.order import Order, RowPlace
from trainer.data.prefetch import BlockReader, BlockRows
from trainer.data.prepare import Preparer, SkippedRow
from trainer.data.processes import RowProcesses
from trainer.data.skips import SkipCounter
from trainer.errors import NoTrainingData
from trainer.options import Recipe

AHEAD: Final = 2  # steps being prepared while one is trained on

NeedsFeatures = Callable[[str], bool]  # whether the row with this id needs features; called from several threads
PendingStep = list[tuple[RowPlace, Future[PreparedRow | SkippedRow]]]  # a step's rows, in order of position


class TrainingData:
    """One process's share of a dataset. A context manager; not to be shared between threads.

    `rows` and `seconds` count the whole dataset, held-out recordings included; `manifest` is the dataset's; `workers`
    says what prepares rows. `beside_gpu` decides that where the recipe does not.

        with TrainingData(FrozenDataset(lake, "talks"), recipe, vocabulary=vocabulary, mels=80) as data:
            for micro_batches in data.steps(0):
                …

    Raises:
        NoTrainingData: the dataset has no rows.
        BadRequest: the model has no prompt for the recipe's language.
        StoreError: shards are gone.
    """

    def __init__(
        self,
        dataset: FrozenDataset,
        recipe: Recipe,
        *,
        vocabulary: Vocabulary,
        mels: int,
        rank: int = 0,
        world: int = 1,
        beside_gpu: bool = False,
    ) -> None:
        self.manifest = dataset.manifest
        self._groups = dataset.groups()
        if not self._groups:
            raise NoTrainingData(f"dataset {self.manifest.name!r} has no rows", hint="freeze it with a larger α")
        check_language(recipe.language, known=vocabulary.languages, besides=(MIXED,))
        dataset.check()
        self.rows = sum(shard.rows for shard in self.manifest.shards)
        self.seconds = round(sum(shard.seconds for shard in self.manifest.shards), 3)
        self._dataset = dataset
        self._recipe = recipe
        preparer = Preparer(recipe, vocabulary, mels)
        in_processes = beside_gpu if recipe.worker_kind == "auto" else recipe.worker_kind == "processes"
        self._processes = RowProcesses(preparer, recipe.workers) if in_processes else None
        self.workers = (
            counted(recipe.workers, "process", "processes") if in_processes else counted(recipe.workers, "thread")
        )
        self._preparer = self._processes or preparer
        self._pad = vocabulary.eot
        # a process takes a contiguous share of every batch, so that it reads as few lanes as possible
        self._positions = range(rank * recipe.batch // world, (rank + 1) * recipe.batch // world)
        self._order = Order(
            [group.rows for group in self._groups],
            seed=recipe.seed,
            batch=recipe.batch,
            lanes=recipe.lanes,
            shuffle_groups=recipe.shuffle_groups,
        )
        self._skips = SkipCounter(self.manifest.name, rows=self.rows)
        self._streams: WeakSet[Generator[list[MicroBatch], None, None]] = WeakSet()

    @property
    def skipped(self) -> Counter[str]:
        """Rows this process skipped so far, by reason; those held out for validation are not counted."""
        return self._skips.skipped

    def steps(
        self, start: int, *, needs_features: NeedsFeatures | None = None
    ) -> Generator[list[MicroBatch], None, None]:
        """This process's micro-batches of step `start` (counted from 0) and of all that follow; endless.

        Skipped rows make a micro-batch smaller; a step without any row is empty. Where `needs_features` says no to a
        row's id (in several threads), the row has no features and its audio is not decoded.

        Raises, when the step comes:
            NoTrainingData: too many rows are broken, or none can be used.
            StoreError: a shard is gone or damaged.
            RowProcessDied: one row ended two processes that were to prepare it, or none can be started.
        """
        stream = self._steps(start, needs_features)
        self._streams.add(stream)
        return stream

    def held_out(self, limit: int) -> list[HoldoutRow]:
        """At most `limit` rows of recordings that the recipe holds out; the same ones in every process."""
        return holdout_rows(self._dataset, holdout=self._recipe.holdout, limit=limit)

    def close(self) -> None:
        """End all streams, their threads and processes."""
        for stream in list(self._streams):
            stream.close()
        if self._processes is not None:
            self._processes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _steps(self, start: int, needs_features: NeedsFeatures | None) -> Generator[list[MicroBatch], None, None]:
        reader = BlockReader(self._dataset, self._groups, self._order)
        pool = ThreadPoolExecutor(self._recipe.workers, thread_name_prefix="prepare")
        pending: deque[PendingStep] = deque()
        step = start
        try:
            while True:
                while len(pending) <= AHEAD:
                    pending.append(
                        [self._submit(step, p, needs_features, reader=reader, pool=pool) for p in self._positions]
                    )
                    step += 1
                yield self._micro_batches(pending.popleft())
        finally:
            reader.close()  # first: rows that wait for a block end as well then
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(
        self,
        step: int,
        position: int,
        needs_features: NeedsFeatures | None,
        *,
        reader: BlockReader,
        pool: ThreadPoolExecutor,
    ) -> tuple[RowPlace, Future[PreparedRow | SkippedRow]]:
        """Start preparing one row."""
        block, index = self._order.find(step, position)
        rows = reader.block(block, index)
        number = int(block.shuffled[index])
        return block.place(index), pool.submit(
            self._prepare, rows, number, visit=block.visit, needs_features=needs_features
        )

    def _prepare(
        self, rows: Future[BlockRows], number: int, *, visit: int, needs_features: NeedsFeatures | None
    ) -> PreparedRow | SkippedRow:
        """Runs in a thread of the pool. It may wait for the reader's thread, which never waits for the pool."""
        fields = rows.result().take(number)
        with_features = needs_features is None or needs_features(fields["id"])
        return self._preparer.prepare(fields, visit=visit, with_features=with_features)

    def _micro_batches(self, step: PendingStep) -> list[MicroBatch]:
        """Wait for a step's rows and make micro-batches of them, the longest first.

        Their number does not depend on how many rows are skipped: sharded processes run theirs together.
        """
        rows = [row for place, future in step if (row := self._usable(place, future))]
        parts = cut_by_length(rows, -(-len(step) // self._recipe.micro_batch))
        return [collate(part, pad=self._pad) for part in parts]

    def _usable(self, place: RowPlace, future: Future[PreparedRow | SkippedRow]) -> PreparedRow | None:
        """Wait for a row and count it; None where it is skipped."""
        row = future.result()
        if isinstance(row, SkippedRow):
            self._skips.count_skipped(row, place, shard=self._groups[place.group].shard)
            return None
        self._skips.count_used(place)
        return row
