"""Training data: a frozen dataset as an endless stream of steps, the same from any step on, in bounded memory.

The order is `trainer.data.order`'s. A reader thread brings blocks of rows, a pool decodes them and computes features, and a
few steps are under way ahead of the consumer. Nothing is written, and no more than blocks and those steps is held.
"""

from collections import Counter, deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self
from weakref import WeakSet

from k2d.datasets.read import FrozenDataset
from k2d.schema import MIXED
from k2d.whisper.languages import check_language
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import MicroBatch, Row, collate
from trainer.data.holdout import HeldOut, choose
from trainer.data.order import Order, Place
from trainer.data.prefetch import Loaded, Reader
from trainer.data.prepare import Preparer, Skipped, Wanted
from trainer.data.tally import Tally
from trainer.errors import NoTrainingData
from trainer.options import Recipe

AHEAD = 2  # steps under way while one is being trained on

Asked = list[tuple[Place, Future[Row | Skipped]]]  # a step's rows, in order of position


class TrainingData:
    """One process's share of a dataset. A context manager; not to be shared between threads.

    `rows` and `seconds` count the whole dataset, held-out recordings included; `skipped` what this process left out
    so far, by reason; `manifest` is the dataset's.

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
        self._preparer = Preparer(recipe, vocabulary, mels)
        self._pad = vocabulary.eot
        self._positions = range(rank * recipe.batch // world, (rank + 1) * recipe.batch // world)
        self._order = Order(
            [group.rows for group in self._groups],
            seed=recipe.seed,
            batch=recipe.batch,
            lanes=recipe.lanes,
            shuffle_groups=recipe.shuffle_groups,
        )
        self._tally = Tally(self.manifest.name, rows=self.rows)
        self._running: WeakSet[Generator[list[MicroBatch], None, None]] = WeakSet()

    @property
    def skipped(self) -> Counter[str]:
        """Rows this process left out so far, by reason; those held out for validation are not counted."""
        return self._tally.skipped

    def steps(self, start: int, *, wanted: Wanted | None = None) -> Generator[list[MicroBatch], None, None]:
        """This process's micro-batches of step `start` and all that follow; endless.

        Rows that are left out make a micro-batch smaller, a step empty at worst. Where `wanted` (called from several
        threads with a row's id) says no, the row has no features and its audio is not decoded.

        Raises, when the step comes:
            NoTrainingData: too many rows are broken, or none can be used.
            StoreError: a shard is gone or damaged.
        """
        running = self._steps(start, wanted)
        self._running.add(running)
        return running

    def held_out(self, limit: int) -> list[HeldOut]:
        """At most `limit` rows of recordings that the recipe holds out; the same ones in every process."""
        return choose(self._dataset, holdout=self._recipe.holdout, limit=limit)

    def close(self) -> None:
        """End all threads."""
        for running in list(self._running):
            running.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _steps(self, start: int, wanted: Wanted | None) -> Generator[list[MicroBatch], None, None]:
        reader = Reader(self._dataset, self._groups, self._order)
        pool = ThreadPoolExecutor(self._recipe.workers, thread_name_prefix="prepare")
        under_way: deque[Asked] = deque()
        step = start
        try:
            while True:
                while len(under_way) <= AHEAD:
                    under_way.append([self._ask(step, p, wanted, reader=reader, pool=pool) for p in self._positions])
                    step += 1
                yield self._collect(under_way.popleft())
        finally:
            reader.close()  # first: what waits for a block then ends as well
            pool.shutdown(wait=True, cancel_futures=True)

    def _ask(
        self, step: int, position: int, wanted: Wanted | None, *, reader: Reader, pool: ThreadPoolExecutor
    ) -> tuple[Place, Future[Row | Skipped]]:
        block, index = self._order.find(step, position)
        loading = reader.block(block, index)
        row = int(block.shuffled[index])
        return block.place(index), pool.submit(self._prepare, loading, row, visit=block.visit, wanted=wanted)

    def _prepare(self, loading: Future[Loaded], row: int, *, visit: int, wanted: Wanted | None) -> Row | Skipped:
        """In a thread of the pool; the reader thread never waits for this one."""
        return self._preparer.prepare(loading.result().take(row), visit=visit, wanted=wanted)

    def _collect(self, asked: Asked) -> list[MicroBatch]:
        """Wait for a step's rows and lay them into micro-batches."""
        batches = []
        size = self._recipe.micro_batch
        for first in range(0, len(asked), size):
            rows = [row for place, future in asked[first : first + size] if (row := self._row(place, future))]
            if rows:
                batches.append(collate(rows, pad=self._pad))
        return batches

    def _row(self, place: Place, future: Future[Row | Skipped]) -> Row | None:
        found = future.result()
        if isinstance(found, Row):
            self._tally.used(place)
            return found
        self._tally.left_out(found, place, shard=self._groups[place.group].shard)
        return None
