"""The labeling service without servers: the same walk, the same lake, in this process."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from k2d import audio, sources
from k2d.client.backend import OnStatus
from k2d.corpus import chunk as chunk_detail
from k2d.corpus import perturbations as catalog
from k2d.corpus.views import ChunkFilter
from k2d.datasets.formats import export
from k2d.datasets.freeze import freeze
from k2d.errors import AudioError
from k2d.filtering.policy import Policy
from k2d.labeling.forecast import forecast
from k2d.labeling.group import AttemptsInMemory, Group, RecordingsFailed
from k2d.labeling.models import opened
from k2d.labeling.recording import Labeler, Progress, Stage
from k2d.labeling.request import LabelRequest, make_batch
from k2d.schema import Batch, Metric, RecordingResult, Source
from k2d.settings import Settings
from k2d.store import Lake


class Embedded:
    """A backend that does the work itself."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lake = Lake(settings.store)

    @property
    def where(self) -> str:
        return f"this process (store: {self.settings.store})"

    def label(self, paths: Sequence[str], request: LabelRequest, *, wait: bool, on_status: OnStatus) -> dict[str, Any]:
        self.lake.check()
        batch = make_batch(self._sources(paths), request, self.settings, trusted=True)
        self.lake.batches.put(batch)
        self._run(batch, on_status)
        return catalog.status(self.lake, batch)

    def forecast(self, paths: Sequence[str], request: LabelRequest) -> dict[str, Any]:
        batch = make_batch(self._sources(paths), request, self.settings)
        return asdict(forecast([self._header_duration(source) for source in batch.sources], self.lake))

    def batches(self) -> list[dict[str, Any]]:
        found = []
        for batch in self.lake.batches.all():
            pending = len(batch.sources) - len(self.lake.batches.result_positions(batch.id))
            state = catalog.state(self.lake, batch, pending=pending, jobs=None)
            found.append({**catalog.summary(batch), "state": state, "pending": pending})
        return found

    def status(self, batch: str, policy: Policy) -> dict[str, Any]:
        return catalog.status(self.lake, self.lake.batches.get(batch), policy)

    def chunks(self, batch: str, policy: Policy, where: ChunkFilter) -> Iterator[dict[str, Any]]:
        return catalog.all_chunks(self.lake, self.lake.batches.get(batch), policy, where=where)

    def chunk(self, chunk_id: str, policy: Policy) -> dict[str, Any]:
        return chunk_detail.detail(self.lake, chunk_id, policy)

    def preview(
        self, batches: Sequence[str], policy: Policy, *, metrics: Sequence[Metric] | None = None
    ) -> dict[str, Any]:
        found = [self.lake.batches.get(batch) for batch in dict.fromkeys(batches)]
        return catalog.preview(self.lake, found, policy, metrics=metrics)

    def freeze(
        self, name: str, batches: Sequence[str], policy: Policy, *, without: Collection[str] = ()
    ) -> dict[str, Any]:
        ids = [self.lake.batches.get(batch).id for batch in dict.fromkeys(batches)]
        return freeze(self.lake, name=name, batches=ids, policy=policy, without=without)

    def export(self, name: str, format_: str, folder: Path) -> dict[str, Any]:
        export(self.lake, name, format_, folder)
        return self.lake.datasets.manifest(name)

    def resume(self) -> dict[str, int]:
        missing = {}
        for batch in self.lake.batches.all():
            left = len(batch.sources) - len(self.lake.batches.result_positions(batch.id))
            if left and not self.lake.batches.is_cancelled(batch.id):
                missing[batch.id] = left
                self._run(batch, lambda _: None)
        return missing

    # ---- helpers --------------------------------------------------------------------------------------------------

    def _sources(self, paths: Sequence[str]) -> list[Source]:
        return [sources.from_path(path) for path in sources.expand(paths)]

    def _header_duration(self, source: Source) -> float | None:
        with suppress(AudioError, OSError), sources.open_source(source, self.lake.open) as file:
            return audio.probe_duration_s(file)
        return None

    def _run(self, batch: Batch, on_status: OnStatus) -> None:
        """Finish the batch; a recording that fails unexpectedly is tried again alone, then set aside."""
        attempts = AttemptsInMemory()
        while True:
            done = self.lake.batches.result_positions(batch.id)
            missing = [position for position in range(len(batch.sources)) if position not in done]
            if not missing:
                return
            with suppress(RecordingsFailed):  # what failed is still missing: the next round takes it alone
                asyncio.run(self._round(batch, missing, attempts, on_status))

    async def _round(
        self, batch: Batch, positions: Sequence[int], attempts: AttemptsInMemory, on_status: OnStatus
    ) -> None:
        told = _Told(total=len(batch.sources), finished=len(batch.sources) - len(positions), on_status=on_status)

        def on_result(result: RecordingResult) -> None:
            self.lake.batches.put_result(batch.id, result)
            told.result(result)

        async with opened(self.settings, batch, self.lake) as (teacher, validators):
            labeler = Labeler(
                self.lake,
                teacher=teacher,
                validators=validators,
                batch=batch,
                settings=self.settings,
                on_progress=told.progress,
            )
            concurrency = self.settings.concurrency
            await Group(labeler=labeler, attempts=attempts, on_result=on_result, concurrency=concurrency).run(positions)


class _Told:
    """Turns steps and results into the status a progress bar needs."""

    def __init__(self, *, total: int, finished: int, on_status: OnStatus) -> None:
        self.total = total
        self.finished = finished
        self.on_status = on_status
        self.done_s = 0.0
        self.in_flight: dict[int, float] = {}

    def progress(self, step: Progress) -> None:
        if step.stage == Stage.LABEL:
            self.in_flight[step.position] = step.seconds
            self._tell()

    def result(self, result: RecordingResult) -> None:
        self.in_flight.pop(result.position, None)
        self.done_s += result.duration_s
        self.finished += 1
        self._tell()

    def _tell(self) -> None:
        seconds = self.done_s + sum(self.in_flight.values())
        self.on_status({"seconds": seconds, "recordings": self.finished, "total": self.total, "error": None})
