"""The interface of the labeling service.

The HTTP client and the embedded client both implement it:

    from k2d.client import Client, Embedded

    backend = Client("http://127.0.0.1:8080")  # or Embedded(k2d.settings.load())
    status = backend.label(["talk.m4a"], BatchOptions(name="talks"), wait=True)
    print(status.ledger.seconds.accepted)
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

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
from k2d.errors import BadRequest, K2DError
from k2d.filtering.policy import DEFAULT, Policy
from k2d.schema import Metric, Script
from k2d.steps import OnSteps, ignore_steps
from k2d.store.manifest import Manifest
from k2d.wording import counted

OnStatus = Callable[[PartialResult], None]  # called with the progress of a batch


class ResumeIncomplete(K2DError):
    """Some batches were not resumed; the others were.

    By batch id: `resumed` has the number of missing recordings, `failed` why a batch could not be resumed, `at_work`
    the process that is at work on a batch already, which is no fault.
    """

    code = "resume_incomplete"
    hint = "remove the causes, then run `k2d resume` again: it does only what is missing"

    def __init__(
        self, resumed: Mapping[str, int], failed: Mapping[str, str], at_work: Mapping[str, str] | None = None
    ) -> None:
        self.resumed = dict(resumed)
        self.failed = dict(failed)
        self.at_work = dict(at_work or {})
        if failed:
            reasons = "; ".join(f"{batch}: {reason}" for batch, reason in failed.items())
            super().__init__(f"{counted(len(failed), 'batch', 'batches')} could not be resumed: {reasons}")
        else:
            super().__init__("; ".join(self.notes()), hint="wait for its end, then run `k2d resume` again")

    def notes(self) -> list[str]:
        """A sentence for each batch that was left out because a process is at work on it."""
        return [f"{batch} left out, as another process is at work on it: {who}" for batch, who in self.at_work.items()]


def no_audio(paths: Sequence[str]) -> BadRequest:
    """The error for paths in which there is no audio file."""
    return BadRequest(
        f"no audio in {', '.join(map(str, paths)) or 'the files given'}",
        hint="folders are searched for audio and video files by their extension; a file given by name is always taken",
    )


def ignore(_: PartialResult) -> None:
    """An OnStatus that does nothing."""


class Backend(Protocol):
    """The operations of the labeling service. Results are the API's documents (`k2d.documents`).

    A batch is named by its id or its name. Every operation may raise NotFound for an unknown batch, chunk or dataset.
    """

    @property
    def where(self) -> str:
        """Where batches and datasets are, for messages to the user."""
        ...

    def label(
        self,
        paths: Sequence[str],
        options: BatchOptions,
        *,
        wait: bool = False,
        add: bool = False,
        below: Sequence[str] = (),
        on_status: OnStatus = ignore,
    ) -> BatchStatus:
        """Start or find the batch of these recordings (`k2d.sources.collect`) and options; returns its status.

        With `add`, what is new in them is added to the batch of the options' name, which keeps its options; where there
        is no such batch, one is made. Files in the folders `below` are named as if these had been given. With `wait`,
        returns when the batch is done; `on_status` is called with its progress until then.
        """
        ...

    def forecast(self, paths: Sequence[str], options: BatchOptions, *, add: bool = False) -> Forecast:
        """Estimate the cost of labeling these files; with `add`, of adding them to the batch of the options' name."""
        ...

    def batches(self) -> list[BatchItem]:
        """All batches, newest first."""
        ...

    def status(self, batch: str, policy: Policy = DEFAULT) -> BatchStatus:
        """A batch's state, and its ledger under a policy."""
        ...

    def chunks(self, batch: str, policy: Policy = DEFAULT, where: ChunkFilter | None = None) -> Iterator[ChunkRow]:
        """The chunks of a batch that satisfy `where`, in order."""
        ...

    def chunk(self, chunk_id: str, policy: Policy = DEFAULT) -> ChunkDetail:
        """Everything known about a chunk."""
        ...

    def chunk_audio(self, chunk_id: str) -> bytes:
        """A chunk's audio as FLAC, cut to its label."""
        ...

    def subtitles(self, batch: str, form: str) -> Iterator[tuple[str, bytes]]:
        """The labels of each recording as subtitles (`srt`, `vtt`): names of files, below no folder, and contents."""
        ...

    def preview(
        self, batches: Sequence[str], policy: Policy = DEFAULT, *, metrics: Sequence[Metric] | None = None
    ) -> Preview:
        """What a policy would keep, with the curve over α for `metrics` (by default the policy's own)."""
        ...

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
        """Freeze what the policy keeps as a dataset in one script, except the ids `without`; waits for it.

        `gold`: reviewed texts replace labels. `allow_mixed`: also recordings of different versions of k2d. `on_steps`
        is called with recordings written.
        """
        ...

    def datasets(self) -> list[DatasetItem]:
        """All datasets, by name."""
        ...

    def manifest(self, name: str) -> Manifest:
        """A frozen dataset's manifest."""
        ...

    def delete_dataset(self, name: str) -> DatasetItem:
        """Delete a dataset and its shards; returns its description."""
        ...

    def export(
        self,
        name: str,
        format_: str,
        folder: str | Path,
        *,
        script: Script | None = None,
        on_steps: OnSteps = ignore_steps,
    ) -> Manifest:
        """Write a dataset into `folder`, a path or a URL, in another format (`k2d.datasets.formats`), and in one script
        if given. `on_steps` is called with shards written."""
        ...

    def cancel(self, batch: str) -> BatchStatus:
        """Cancel a batch: no more recordings are started; results stay."""
        ...

    def retry(self, batch: str, on_status: OnStatus = ignore) -> BatchStatus:
        """Process the missing recordings of a batch, and its quarantined ones again."""
        ...

    def resume(self, on_status: OnStatus = ignore) -> dict[str, int]:
        """Process the missing recordings of all batches, or queue them again; returns their number by batch id.

        Raises:
            ResumeIncomplete: some batches could not be resumed, or other processes are at work on them; raised after
                all others were.
        """
        ...
