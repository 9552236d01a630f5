"""Published training runs: small documents for whoever watches them. Checkpoints and students stay outside."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from k2d.errors import Conflict, DamagedFile, NotFound
from k2d.store.base import LakePart, safe_name
from k2d.store.parquet import dumps

RunState = Literal["running", "done", "stopped", "failed"]
FORMAT: Final = 1  # of the documents


class _RunDocument(BaseModel):
    model_config = ConfigDict(frozen=True)


class PublishedRun(_RunDocument):
    """What a run is, and how far. `run_id` tells two runs of one name apart."""

    name: str
    run_id: str
    state: RunState
    error: str | None = None
    started_at: str  # ISO 8601, UTC
    updated_at: str
    step: int = 0  # done
    steps: int  # of the recipe
    step_s: float | None = None  # seconds a step takes, of the latest ones
    dataset: str
    dataset_digest: str = ""
    dataset_hours: float | None = None
    teacher: str
    student: list[dict[str, Any]] = Field(default_factory=list)  # by part: layers and parameters of both
    recipe: dict[str, Any] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    k2d_version: str = ""
    loss: float | None = None
    mer: float | None = None  # of the last validation
    best_mer: float | None = None
    best_step: int | None = None
    format: int = FORMAT


class RunCurves(_RunDocument):
    """A run's curves, thinned to a bounded number of points: columns of equal length."""

    stride: int = 1  # steps that a point of `training` is the mean of
    training: dict[str, list[float]] = Field(default_factory=dict)  # `step`, and each measured value
    validation: dict[str, list[float]] = Field(default_factory=dict)  # `step`, `mer`


class Rate(_RunDocument):
    """An error rate and its 95 % band."""

    value: float | None
    low: float | None = None
    high: float | None = None


class EvaluatedModel(_RunDocument):
    """One model's results on a set."""

    reference: str
    rates: dict[str, Rate]  # by the metric's name for people
    repetitions: int
    real_time: float  # seconds of audio transcribed in a second
    parameters: int | None = None
    disk_mb: float | None = None


class EvaluatedLine(_RunDocument):
    """One utterance: what was said, what each model wrote, and whether its audio was published."""

    name: str
    language: str
    seconds: float
    reference: str
    hypotheses: list[str]
    edits: list[int]
    tokens: list[int]
    has_clip: bool = False


class RunEvaluation(_RunDocument):
    """An evaluation of a run's student, beside its teacher or other models."""

    name: str  # of the set
    created_at: str
    language: str
    utterances: int
    seconds: float
    pseudo_labels: bool = False
    machine: str = ""
    models: list[EvaluatedModel]
    lines: list[EvaluatedLine] = Field(default_factory=list)  # most edits of the last model first


class Runs(LakePart):
    """Runs: runs/<name>/run.json, curves.json, evaluations/<set>.json and evaluations/<set>/<line>.flac.

    lake.runs.record("first").best_mer
    """

    def names(self) -> list[str]:
        """List the names of all published runs, sorted."""
        return [name for name in self.files.folders("runs") if self.files.exists(_path(name, "run.json"))]

    def record(self, name: str) -> PublishedRun:
        """What a run is, and how far.

        Raises:
            NotFound: no run of this name was published.
            StoreError
        """
        try:
            record: PublishedRun = self.read_document(_path(name, "run.json"), PublishedRun)
        except NotFound as error:
            raise NotFound(
                f"no run is called {name[:100]!r}",
                hint="`k2d train … --publish` puts a run into the store",
                run=name[:100],
            ) from error
        return record

    def all(self) -> list[PublishedRun | tuple[str, DamagedFile]]:
        """All runs, the newest first; of a damaged one its name and the error."""
        found: list[PublishedRun | tuple[str, DamagedFile]] = []
        for name in self.names():
            try:
                found.append(self.record(name))
            except DamagedFile as error:
                found.append((name, error))
        return sorted(found, key=lambda run: run.started_at if isinstance(run, PublishedRun) else "", reverse=True)

    def put(self, record: PublishedRun) -> None:
        """Store how far a run is.

        Raises:
            Conflict: the name belongs to another run.
            StoreError
        """
        try:
            owner = self.record(record.name).run_id
        except (NotFound, DamagedFile):
            owner = record.run_id
        if owner != record.run_id:
            raise named_twice(record.name)
        self._write(record.name, "run.json", record)

    def curves(self, name: str) -> RunCurves:
        """A run's curves; empty before its first step.

        Raises:
            StoreError
        """
        try:
            curves: RunCurves = self.read_document(_path(name, "curves.json"), RunCurves)
        except NotFound:
            return RunCurves()
        return curves

    def put_curves(self, name: str, curves: RunCurves) -> None:
        """Store a run's curves, replacing the earlier ones."""
        self._write(name, "curves.json", curves)

    def evaluations(self, name: str) -> list[RunEvaluation]:
        """A run's evaluations, the newest first.

        Raises:
            StoreError
        """
        paths = [path for path in self.files.listing(_path(name, "evaluations")) if path.endswith(".json")]
        found: list[RunEvaluation] = [self.read_document(path, RunEvaluation) for path in paths]
        return sorted(found, key=lambda evaluation: evaluation.created_at, reverse=True)

    def evaluation(self, name: str, key: str) -> RunEvaluation:
        """One evaluation, by `evaluation_key` of its set.

        Raises:
            NotFound, StoreError
        """
        found: RunEvaluation = self.read_document(_path(name, f"evaluations/{safe_name(key)}.json"), RunEvaluation)
        return found

    def put_evaluation(self, name: str, key: str, evaluation: RunEvaluation) -> None:
        """Store an evaluation, replacing the earlier one on the same set.

        Raises:
            NotFound: no run of this name was published.
            StoreError
        """
        self.record(name)
        self._write(name, f"evaluations/{safe_name(key)}.json", evaluation)

    def clip(self, name: str, key: str, line: int) -> bytes:
        """The FLAC of one line of an evaluation.

        Raises:
            NotFound, StoreError
        """
        return self.files.read(_clip(name, key, line))

    def put_clip(self, name: str, key: str, line: int, flac: bytes) -> None:
        """Store the FLAC of one line of an evaluation."""
        self.files.write(_clip(name, key, line), flac)

    def drop_clips(self, name: str, key: str) -> None:
        """Remove the audio of an evaluation."""
        self.files.remove_folder(_path(name, f"evaluations/{safe_name(key)}"))

    def _write(self, name: str, document: str, value: BaseModel) -> None:
        self.files.write(_path(name, document), dumps(value.model_dump(mode="json")))


def named_twice(name: str) -> Conflict:
    """The error of a run whose name another run has."""
    return Conflict(
        f"the store has another run named {name!r}",
        hint="train into a folder of another name: the run is published under it",
    )


def evaluation_key(set_name: str) -> str:
    """The name under which an evaluation on this set is stored: evaluation_key("dev set.jsonl") == "dev_set.jsonl"."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in set_name).lstrip("._-")
    return name[:100] or "set"


def _path(name: str, document: str) -> str:
    return f"runs/{safe_name(name)}/{document}"


def _clip(name: str, key: str, line: int) -> str:
    return _path(name, f"evaluations/{safe_name(key)}/{line:05d}.flac")
