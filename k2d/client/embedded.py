"""The labeling service in this process, without servers: the same code and the same store."""

import asyncio
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from k2d import sources
from k2d.audio.isolated import DecodeLimits
from k2d.client.backend import OnStatus, ResumeIncomplete, ignore, no_audio
from k2d.corpus import chunk as chunk_view
from k2d.corpus import chunk_pages, index, transcripts, views
from k2d.corpus.index import take_back_outdated
from k2d.corpus.time_left import RunSpeed, work_done_s
from k2d.datasets.catalog import delete_dataset, list_datasets
from k2d.datasets.formats import export
from k2d.datasets.freeze import freeze
from k2d.documents import (
    BatchItem,
    BatchOptions,
    BatchStatus,
    ChunkDetail,
    ChunkFilter,
    ChunkRow,
    DatasetItem,
    Forecast,
    PartialResult,
    Preview,
)
from k2d.errors import Conflict, K2DError, described
from k2d.filehash import FileHashes
from k2d.filtering.policy import DEFAULT, Policy
from k2d.labeling.accept import accept, batch_before, split_stored
from k2d.labeling.forecast import Header, forecast, probe_header
from k2d.labeling.group import AttemptsInMemory, RecordingGroup, RecordingsFailed
from k2d.labeling.open_models import check_models, open_models
from k2d.labeling.recording import Labeler, Progress, Stage
from k2d.labeling.request import check_options, make_batch
from k2d.labeling.terms import terms_left_out
from k2d.schema import Batch, Metric, RecordingResult, Script, Source
from k2d.settings import Settings
from k2d.steps import OnSteps, ignore_steps
from k2d.store import Lake
from k2d.store.audit_log import local_user
from k2d.store.batches import DamagedBatch
from k2d.store.manifest import Manifest

ASKED_AT_ONCE: Final = 16  # URIs whose size is asked for at the same time
HEADERS: Final = 2000  # whose lengths are read for the progress; of more, they are known when labeling comes to them
READ_AT_ONCE: Final = 4  # files that are hashed at the same time; chosen: more do not help a disk


class _AtWork(Conflict):
    """Another process is at work on a batch."""


class Embedded:
    """A Backend that does the work in this process.

        status = Embedded(k2d.settings.load(store="data")).label(["talk.m4a"], BatchOptions(name="talks"))
        print(status.ledger.seconds.accepted)

    `label` always waits for the batch. A batch that another process is at work on is refused (Conflict); with `anyway`
    it is worked on beside that process, which does work twice.
    """

    def __init__(self, settings: Settings, *, anyway: bool = False) -> None:
        self.settings = settings
        self.anyway = anyway
        self.lake = Lake(settings.store)

    @property
    def where(self) -> str:
        return f"store {self.settings.store}"

    def label(
        self,
        paths: Sequence[str],
        options: BatchOptions,
        *,
        wait: bool = True,
        add: bool = False,
        below: Sequence[str] = (),
        on_status: OnStatus = ignore,
    ) -> BatchStatus:
        check_options(options, self.settings)
        self.lake.check()
        files = self._sources(paths, options, below=below, hashes=FileHashes(self.settings.cache))
        if add and options.name and (before := self.lake.batches.find(options.name)) is not None:
            self._refuse_beside(before)
        batch = accept(files, options, self.lake, self.settings, adds=add, trusted=True)
        self._refuse_beside(batch)
        self.lake.batches.uncancel(batch.id)
        self._record("post", batch.id)
        take_back_outdated(self.lake, batch)
        self._run(batch, on_status)
        left_out = terms_left_out(options, self.settings)
        return views.status(self.lake, batch).model_copy(update={"terms_left_out": left_out})

    def forecast(self, paths: Sequence[str], options: BatchOptions, *, add: bool = False) -> Forecast:
        check_options(options, self.settings)
        files = self._sources(paths, options, hashes=FileHashes(self.settings.cache), reads=False)
        batch = make_batch(files, options, self.settings)
        before = batch_before(files, options, self.lake, self.settings) if add else None
        check_models(self.settings, before or batch)
        unread = sum(sources.is_file(source) and source.sha256 is None for source in batch.sources)
        header_of = partial(self._header, counts_channels=batch.audio.channel is not None)
        return forecast(batch.sources, self.lake, before or batch, header_of=header_of, unread=unread)

    def batches(self) -> list[BatchItem]:
        return [
            views.listed_damaged(batch) if isinstance(batch, DamagedBatch) else views.listed(self.lake, batch)
            for batch in self.lake.batches.entries()
        ]

    def status(self, batch: str, policy: Policy = DEFAULT) -> BatchStatus:
        return views.status(self.lake, self.lake.batches.get(batch), policy)

    def chunks(self, batch: str, policy: Policy = DEFAULT, where: ChunkFilter | None = None) -> Iterator[ChunkRow]:
        return chunk_pages.all_chunks(self.lake, self.lake.batches.get(batch), policy, where=where or ChunkFilter())

    def chunk(self, chunk_id: str, policy: Policy = DEFAULT) -> ChunkDetail:
        return chunk_view.detail(self.lake, chunk_id, policy)

    def chunk_audio(self, chunk_id: str) -> bytes:
        return self.lake.chunk_audio(chunk_view.find_chunk(self.lake, chunk_id).id)

    def subtitles(self, batch: str, form: str) -> Iterator[tuple[str, bytes]]:
        return transcripts.subtitle_files(self.lake, self.lake.batches.get(batch), form)

    def preview(
        self, batches: Sequence[str], policy: Policy = DEFAULT, *, metrics: Sequence[Metric] | None = None
    ) -> Preview:
        chosen_batches = [self.lake.batches.get(batch) for batch in dict.fromkeys(batches)]
        return views.preview(self.lake, chosen_batches, policy, metrics=metrics)

    def freeze(
        self,
        name: str,
        batches: Sequence[str],
        policy: Policy = DEFAULT,
        *,
        without: Collection[str] = (),
        script: Script = Script.AS_HEARD,
        gold: bool = False,
        allow_mixed: bool = False,
        on_steps: OnSteps = ignore_steps,
    ) -> Manifest:
        ids = [self.lake.batches.get(batch).id for batch in dict.fromkeys(batches)]
        manifest = freeze(
            self.lake,
            name=name,
            batches=ids,
            policy=policy,
            without=without,
            script=script,
            gold=gold,
            allow_mixed=allow_mixed,
            progress=on_steps,
        )
        self._record("freeze", name)
        return manifest

    def datasets(self) -> list[DatasetItem]:
        return list_datasets(self.lake)

    def manifest(self, name: str) -> Manifest:
        return self.lake.datasets.manifest(name)

    def delete_dataset(self, name: str) -> DatasetItem:
        deleted = delete_dataset(self.lake, name)
        self._record("delete", name)
        return deleted

    def export(
        self,
        name: str,
        format_: str,
        folder: str | Path,
        *,
        script: Script | None = None,
        on_steps: OnSteps = ignore_steps,
    ) -> Manifest:
        export(self.lake, name, format_, folder, script=script, on_steps=on_steps)
        return self.lake.datasets.manifest(name)

    def cancel(self, batch: str) -> BatchStatus:
        stored = self.lake.batches.get(batch)
        self.lake.batches.cancel(stored.id)
        return views.status(self.lake, stored)

    def retry(self, batch: str, on_status: OnStatus = ignore) -> BatchStatus:
        self.lake.check()
        stored = self.lake.batches.get(batch)
        self._refuse_beside(stored)
        index.retry(self.lake, stored)
        take_back_outdated(self.lake, stored)
        self._run(stored, on_status)
        return views.status(self.lake, stored)

    def resume(self, on_status: OnStatus = ignore) -> dict[str, int]:
        missing: dict[str, int] = {}
        failed: dict[str, str] = {}
        at_work: dict[str, str] = {}
        for batch in self.lake.batches.entries():
            if isinstance(batch, DamagedBatch):
                failed[batch.id] = described(batch.error)
                continue
            try:
                if count := self._resume(batch, on_status):
                    missing[batch.id] = count
            except _AtWork as error:
                at_work[batch.id] = error.details["process"]
            except K2DError as error:  # the other batches go on
                failed[batch.id] = described(error)
        if failed or at_work:
            raise ResumeIncomplete(missing, failed, at_work)
        self.lake.mark_current()
        return missing

    def _resume(self, batch: Batch, on_status: OnStatus) -> int:
        """Process the missing recordings of a batch; returns how many those were."""
        take_back_outdated(self.lake, batch, search=True)
        count = len(batch.sources) - len(self.lake.batches.result_positions(batch.id))
        if not count or self.lake.batches.is_cancelled(batch.id):
            return 0
        self._refuse_beside(batch)
        self._record("resume", batch.id)
        self._run(batch, on_status)
        return count

    # ---- helpers --------------------------------------------------------------------------------------------------

    def _header(self, source: Source, *, counts_channels: bool = False) -> Header:
        opened = partial(sources.open_source, source, lake_open=self.lake.open)
        return probe_header(source.name, opened, DecodeLimits.of(self.settings), counts_channels=counts_channels)

    def _refuse_beside(self, batch: Batch) -> None:
        """Raise Conflict while another process is at work on a batch."""
        if not self.anyway and (others := self.lake.heartbeats.of(batch.id)):
            raise _AtWork(
                f"another process is at work on batch {batch.name}: {others[0]}",
                hint=f"`k2d status {batch.name} --watch` follows it; wait for its end, or stop it, and run the command "
                "again; `--anyway` works beside it, and does work twice",
                batch=batch.id,
                process=str(others[0]),
            )

    def _record(self, action: str, target: str) -> None:
        self.lake.audit_log.record(action, by=local_user(), target=target)

    def _sources(
        self,
        paths: Sequence[str],
        options: BatchOptions,
        *,
        below: Sequence[str] = (),
        hashes: FileHashes,
        reads: bool = True,
    ) -> list[Source]:
        """The files given, and those in the folders given; one that cannot be read is quarantined when it is labeled.

        Without `reads`, only files that were read before have the key of their content.

        Raises:
            BadRequest: there are none.
        """
        inputs = sources.collect(paths, below=below)
        if not inputs.files and not inputs.uris:
            raise no_audio(paths)

        def described_file(file: tuple[Path, str]) -> Source:
            if reads:
                return sources.from_path_lenient(*file, hashes=hashes)
            return sources.with_known_content(sources.from_path_lenient(*file), hashes)

        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            described_files = list(pool.map(described_file, inputs.files.items()))
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            described_files += pool.map(sources.describe_lenient, inputs.uris)
        return split_stored(described_files, options, self.lake, self.settings)

    def _run(self, batch: Batch, on_status: OnStatus) -> None:
        """Process the missing recordings. One that raises unexpected errors is tried again alone, then quarantined."""
        attempts = AttemptsInMemory()
        with self.lake.heartbeats.beating(batch.id):
            progress = self._progress(batch, self._missing(batch), on_status)
            while missing := self._missing(batch):
                with suppress(RecordingsFailed):  # those are still missing: the next round runs them alone
                    asyncio.run(self._round(batch, missing, attempts, progress))
            index.settle(self.lake, batch)

    def _missing(self, batch: Batch) -> list[int]:
        """The positions of the recordings to process: those without a result; none of a cancelled batch."""
        done = self.lake.batches.result_positions(batch.id)
        missing = [position for position in range(len(batch.sources)) if position not in done]
        return [] if missing and self.lake.batches.is_cancelled(batch.id) else missing

    def _progress(self, batch: Batch, positions: Sequence[int], on_status: OnStatus) -> "_ProgressSum":
        """The progress of a run over these recordings, reported as it is before. Lengths are read where somebody looks
        at it, and only then."""
        left_s, done_s = dict.fromkeys(positions, 0.0), 0.0
        if on_status is not ignore:
            with ThreadPoolExecutor(READ_AT_ONCE) as pool:
                headers = pool.map(lambda position: self._header(batch.sources[position]), positions[:HEADERS])
                left_s |= {
                    position: header.duration_s or 0.0 for position, header in zip(positions, headers, strict=False)
                }
            done_s = views.input_seconds(self.lake, batch)
        progress = _ProgressSum(total=len(batch.sources), left_s=left_s, done_s=done_s, on_status=on_status)
        progress.report()
        return progress

    async def _round(
        self, batch: Batch, positions: Sequence[int], attempts: AttemptsInMemory, progress: "_ProgressSum"
    ) -> None:
        def on_result(result: RecordingResult) -> None:
            self.lake.batches.put_result(batch.id, result)
            progress.on_result(result)

        async with open_models(self.settings, batch, self.lake) as (teacher, validators):
            labeler = Labeler(
                self.lake,
                teacher=teacher,
                validators=validators,
                batch=batch,
                settings=self.settings,
                on_progress=progress.on_step,
            )
            group = RecordingGroup(
                labeler=labeler,
                attempts=attempts,
                on_result=on_result,
                concurrency=self.settings.concurrency,
                should_stop=lambda: self.lake.batches.is_cancelled(batch.id),
            )
            await group.run(positions)


class _ProgressSum:
    """Adds up the progress of concurrent recordings to that of the batch."""

    def __init__(self, *, total: int, left_s: dict[int, float], done_s: float, on_status: OnStatus) -> None:
        self.total = total
        self.left_s = left_s  # length of each recording that is not finished, by position; 0.0 where it is not known
        self.on_status = on_status
        self.done_s = self.before_s = done_s  # of finished recordings
        self.recordings_before = total - len(left_s)
        self.in_flight: dict[Stage, dict[int, float]] = {Stage.LABEL: {}, Stage.VALIDATE: {}}  # seconds, by position
        # of those and of finished recordings, what models worked on in this run
        self.worked_in_flight: dict[Stage, dict[int, float]] = {Stage.LABEL: {}, Stage.VALIDATE: {}}
        self.worked_s = 0.0
        self.speed = RunSpeed()

    def on_step(self, step: Progress) -> None:
        if step.stage in self.in_flight:
            self.in_flight[step.stage][step.position] = step.seconds
            self.worked_in_flight[step.stage][step.position] = step.worked_s
            self.left_s[step.position] = step.duration_s
        if step.stage is Stage.VALIDATE:  # whose labels may be from an earlier run
            self.in_flight[Stage.LABEL][step.position] = step.duration_s
        self._measure()
        self.report()

    def on_result(self, result: RecordingResult) -> None:
        # also from left_s: its length is known now, and what the header of a broken file said does not count
        for seconds in (*self.in_flight.values(), *self.worked_in_flight.values(), self.left_s):
            seconds.pop(result.position, None)
        self.done_s += result.duration_s
        self.worked_s += result.worked_s or 0.0
        self._measure()
        self.report()

    def _measure(self) -> None:
        in_flight_s = work_done_s(*(sum(seconds.values()) for seconds in self.worked_in_flight.values()))
        self.speed.measure(time.monotonic(), self.worked_s + in_flight_s)

    def report(self) -> None:
        labeled_s, validated_s = (self.done_s + sum(seconds.values()) for seconds in self.in_flight.values())
        self.on_status(
            PartialResult(
                seconds=labeled_s,
                validated_s=validated_s,
                audio_s=self.done_s + sum(self.left_s.values()),
                recordings=self.total - len(self.left_s),
                total=self.total,
                recordings_before=self.recordings_before,
                before_s=self.before_s,
                times_real_time=self.speed.times_real_time,
            )
        )
