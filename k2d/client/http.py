"""Client of the labeling API over HTTP.

Uploads files, waits for the batch, and asks about it:

    client = Client("http://127.0.0.1:8080", token="…")
    status = client.label(["talk.m4a"], BatchOptions(name="talks"), wait=True)
"""

import json
import logging
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from k2d import sources
from k2d.client.backend import OnStatus, ResumeIncomplete, ignore, no_audio
from k2d.client.uploads import Uploader, hash_all
from k2d.corpus.independence import ValidatorsCompared
from k2d.documents import (
    ApiRequest,
    AuditRequest,
    BatchItem,
    BatchList,
    BatchOptions,
    BatchStatus,
    CalibrationRequest,
    CalibrationResult,
    ChunkDetail,
    ChunkFilter,
    ChunkList,
    ChunkRow,
    DatasetItem,
    DatasetList,
    DatasetRequest,
    DatasetState,
    DrawItem,
    DrawRequest,
    Forecast,
    OpenBatch,
    PartialResult,
    Preview,
    PreviewRequest,
    ResumeResult,
)
from k2d.errors import BadRequest, K2DError
from k2d.filehash import FileHashes
from k2d.filtering.policy import DEFAULT, PRESETS, Policy
from k2d.labeling.request import check_name
from k2d.schema import BatchState, Metric, Script
from k2d.settings import default_cache
from k2d.steps import OnSteps, ignore_steps
from k2d.store.manifest import Manifest
from k2d.wording import counted

log = logging.getLogger("k2d.client")  # the standard library's: in a user's script, only what they set up is printed

# Seconds between looks at something that is going on: at first, at most, and as a share of what it took so far. Chosen:
# a bar that moves, and few requests for what takes days.
POLL_S, MOST_POLL_S, POLL_SHARE = 0.5, 5.0, 0.1
INDEX_WAIT_S: Final = 3600.0  # how long a question waits for the index of a batch that workers make
RETRIES_S: Final = (0.1, 0.3, 1.0)  # waits before a GET is sent again that did not reach the API
PAGE: Final = 1000  # chunks per request
FORM_FILES: Final = 32  # up to which files are sent in one request
FORM_BYTES: Final = 64 << 20
CLOSE_S: Final = 600.0  # for the API to make a batch of 10,000s of files


class ApiError(K2DError):
    """The API answered with a problem document. `code`, `status` and `hint` are those of the error in the API."""

    code = "remote_error"  # where the answer names none: it comes from another program

    def __init__(self, document: dict[str, Any], status: int) -> None:
        detail = document.get("detail") or f"the API answered {status}"
        super().__init__(str(detail), hint=document.get("hint"))
        self.code = str(document.get("code") or self.code)
        self.status = status


class Unreachable(K2DError):
    """The API does not answer."""

    code = "api_unreachable"
    status = 503
    hint = "`k2d up` starts an API; K2D_API_URL is its address"


class Client:
    """A Backend that uses a labeling API over HTTP.

        client = Client("http://127.0.0.1:8080", token="…")
        for row in client.chunks("talks", where=ChunkFilter(verdict=Status.REJECTED)):
            print(row.teacher_text, row.reason)

    GET requests are retried when there is no connection.

    Raises:
        BadRequest: the URL is none of an API.

    Raises (all operations):
        ApiError: the API answered with an error.
        Unreachable: it did not answer.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        try:
            # limits connecting and each read or write, not the whole request: an upload may take long
            self.http = httpx.Client(base_url=self.url, headers=headers, timeout=httpx.Timeout(timeout_s, connect=5.0))
        except (httpx.InvalidURL, UnicodeError) as error:
            raise _no_address(url) from error
        if self.http.base_url.scheme not in ("http", "https") or not self.http.base_url.host:
            raise _no_address(url)

    @property
    def where(self) -> str:
        return f"the API at {self.url}"

    def is_up(self) -> bool:
        """Whether a k2d API answers at the address."""
        try:
            response = self.http.get("/healthz", timeout=1.0)
            return response.status_code == httpx.codes.OK and "version" in response.json()
        except (httpx.HTTPError, ValueError):
            return False

    # ---- the backend ----------------------------------------------------------------------------------------------

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
        check_name(options.name)
        inputs = sources.collect(paths, below=below)
        if inputs.uris and inputs.files:
            raise BadRequest(
                "files to send and URIs to read cannot be one request",
                hint="label the ones, then the others with --add NAME",
            )
        if inputs.uris:
            status = self._refer(inputs.uris, options, add=add)
        elif _is_small(inputs.files):
            status = BatchStatus.model_validate(self._post_files(inputs.files, options, dry_run=False, add=add))
        else:
            status = self._send_files(inputs.files, options, add=add)
        poll, before = _Poll(), status
        while wait and status.state not in (BatchState.DONE, BatchState.CANCELLED):
            on_status(_progress(status, before))
            if status.state is BatchState.STALLED and status.jobs and status.jobs.jobs_failed:
                error = status.jobs.last_error or "see the worker's log"
                raise K2DError(
                    f"the batch cannot go on: {error}",
                    hint=f"remove the cause, then run `k2d retry {status.name} --api {self.url}`",
                )
            time.sleep(poll.wait_s())
            status = self.status(status.id)
        on_status(_progress(status, before))
        return status

    def forecast(self, paths: Sequence[str], options: BatchOptions, *, add: bool = False) -> Forecast:
        inputs = sources.collect(paths)
        if inputs.files:
            return Forecast.model_validate(self._post_files(inputs.files, options, dry_run=True, add=add))
        body = options.model_dump(mode="json", exclude_none=True) | {"sources": inputs.uris}
        return Forecast.model_validate(
            self._send("POST", "/v1/batches", params={"dry_run": True, "add": add}, json=body)
        )

    def batches(self) -> list[BatchItem]:
        return [batch for page in self._pages("/v1/batches", {"limit": 200}) for batch in _batch_page(page)]

    def status(self, batch: str, policy: Policy = DEFAULT) -> BatchStatus:
        return BatchStatus.model_validate(self._get(f"/v1/batches/{batch}", _policy_query(policy)))

    def chunks(self, batch: str, policy: Policy = DEFAULT, where: ChunkFilter | None = None) -> Iterator[ChunkRow]:
        request = (where or ChunkFilter()).model_dump(mode="json", exclude_none=True)
        for page in self._pages("/v1/chunks", {"batch": batch, "limit": PAGE, **request, **_policy_query(policy)}):
            yield from ChunkList.model_validate(page).chunks

    def chunk(self, chunk_id: str, policy: Policy = DEFAULT) -> ChunkDetail:
        return ChunkDetail.model_validate(self._get(f"/v1/chunks/{quote(chunk_id, safe='')}", _policy_query(policy)))

    def chunk_audio(self, chunk_id: str) -> bytes:
        with self._connected():
            response = self.http.get(f"/v1/chunks/{quote(chunk_id, safe='')}/audio")
        if response.is_error:
            raise _problem(response)
        return response.content

    def subtitles(self, batch: str, form: str) -> Iterator[tuple[str, bytes]]:
        from k2d.corpus.transcripts import file_name  # needs Arrow, unlike the rest of the client

        path = f"/batches/{quote(batch, safe='')}/subtitles/{quote(form, safe='')}"  # the console's download
        with tempfile.TemporaryFile(prefix="k2d-subtitles-") as file:
            for block in self._download(path):
                file.write(block)
            file.seek(0)
            with tarfile.open(fileobj=file) as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    # whoever answers must not choose where on this machine is written
                    yield file_name(member.name), content.read() if content else b""

    def preview(
        self, batches: Sequence[str], policy: Policy = DEFAULT, *, metrics: Sequence[Metric] | None = None
    ) -> Preview:
        request = PreviewRequest(batches=list(batches), policy=policy, curve=None if metrics is None else list(metrics))
        body = request.model_dump(mode="json")
        return Preview.model_validate(self._asked(lambda: self._send("POST", "/v1/policies/preview", json=body)))

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
        ids = sorted(set(without))
        request = DatasetRequest(
            name=name,
            batches=list(batches),
            policy=policy,
            without=ids,
            script=script,
            gold=gold,
            allow_mixed=allow_mixed,
        )
        dataset = DatasetState.model_validate(self._send("POST", "/v1/datasets", json=request.model_dump(mode="json")))
        poll = _Poll()
        while dataset.state == "building":
            time.sleep(poll.wait_s())
            dataset = self._dataset(name)
        return _manifest_of(dataset)

    def datasets(self) -> list[DatasetItem]:
        return DatasetList.model_validate(self._get("/v1/datasets")).datasets

    def manifest(self, name: str) -> Manifest:
        return _manifest_of(self._dataset(name))

    def delete_dataset(self, name: str) -> DatasetItem:
        return DatasetItem.model_validate(self._send("DELETE", f"/v1/datasets/{name}"))

    def export(
        self,
        name: str,
        format_: str,
        folder: str | Path,
        *,
        script: Script | None = None,
        on_steps: OnSteps = ignore_steps,
    ) -> Manifest:
        from k2d.datasets.pull import export_pulled  # needs Arrow, unlike the rest of the client

        return export_pulled(self, name, format_, folder, script=script, on_steps=on_steps)

    def resume(self, on_status: OnStatus = ignore) -> dict[str, int]:
        result = ResumeResult.model_validate(self._send("POST", "/v1/resume"))
        if result.failed or result.at_work:
            raise ResumeIncomplete(result.batches, result.failed, result.at_work)
        return result.batches

    def cancel(self, batch: str) -> BatchStatus:
        return BatchStatus.model_validate(self._send("DELETE", f"/v1/batches/{batch}"))

    def retry(self, batch: str, on_status: OnStatus = ignore) -> BatchStatus:
        return BatchStatus.model_validate(self._send("POST", f"/v1/batches/{batch}/retry"))

    # ---- more operations ------------------------------------------------------------------------------------------

    def draw(self, request: DrawRequest) -> DrawItem:
        """Draw segments for review on the console's page /review/ID."""
        return DrawItem.model_validate(self._asked(lambda: self._send("POST", "/v1/draws", json=_json(request))))

    def audit(self, request: AuditRequest) -> dict[str, Any]:
        """What share of which speech a policy keeps, as `k2d audit --json` prints it."""
        return self._asked(lambda: self._send("POST", "/v1/policies/audit", json=_json(request)))

    def compare_validators(self, batches: Sequence[str], *, most: int) -> ValidatorsCompared:
        """Which validator shares the teacher's errors least, as `k2d validators --json` prints it."""
        query = {"batch": list(dict.fromkeys(batches)), "most": most}
        return TypeAdapter(ValidatorsCompared).validate_python(self._get("/v1/validators", query))

    def calibrate(self, draw: str, request: CalibrationRequest) -> CalibrationResult:
        """Find the policy that keeps most hours within a label error, by the reviews of a draw."""
        path = f"/v1/draws/{quote(draw, safe='')}/calibrations"
        return CalibrationResult.model_validate(self._send("POST", path, json=_json(request), timeout=CLOSE_S))

    def shard(self, name: str, number: int) -> Iterator[bytes]:
        """Download a Parquet shard of a dataset; yields its bytes in blocks."""
        return self._download(f"/v1/datasets/{name}/shards/{number}")

    # ---- HTTP -----------------------------------------------------------------------------------------------------

    def _dataset(self, name: str) -> DatasetState:
        return DatasetState.model_validate(self._get(f"/v1/datasets/{name}"))

    def _refer(self, uris: Sequence[str], options: BatchOptions, *, add: bool) -> BatchStatus:
        body = options.model_dump(mode="json", exclude_none=True) | {"sources": list(uris)}
        return BatchStatus.model_validate(self._send("POST", "/v1/batches", params={"add": add}, json=body))

    def _send_files(self, named: Mapping[Path, str], options: BatchOptions, *, add: bool) -> BatchStatus:
        """Send files one by one, several at a time, and close the batch. What is there from before is not sent."""
        hashes = FileHashes(default_cache())
        files = hash_all(named, hashes)
        opened = OpenBatch.model_validate(
            self._send(
                "POST",
                "/v1/batches",
                params={"open": True, "add": add},
                json=options.model_dump(mode="json", exclude_none=True),
            )
        )
        Uploader(self._send, opened.id, hashes).send(files)
        return BatchStatus.model_validate(self._send("POST", f"/v1/batches/{opened.id}/close", timeout=CLOSE_S))

    def _post_files(
        self, named: Mapping[Path, str], options: BatchOptions, *, dry_run: bool, add: bool = False
    ) -> dict[str, Any]:
        request = options.model_dump(mode="json", exclude_none=True)
        form = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in request.items()}
        check_name(options.name)
        with ExitStack() as files:
            parts = [("files", (name, file, "application/octet-stream")) for name, file in _open_all(named, files)]
            return self._send(
                "POST",
                "/v1/batches",
                params={"dry_run": dry_run, "add": add},
                files=parts,
                data=form,
                timeout=httpx.Timeout(None),
            )

    def _pages(self, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = self._get(path, query | ({"cursor": cursor} if cursor else {}))
            yield page
            cursor = page["next"]
            if cursor is None:
                return

    def _asked(self, send: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Ask until the index of a batch is there, if it must be made first."""
        poll = _Poll()
        while True:
            try:
                return send()
            except ApiError as error:
                if error.code != "index_incomplete" or poll.elapsed_s > INDEX_WAIT_S:
                    raise
                log.info("%s; asking again", error.message)
                time.sleep(poll.wait_s())

    def _get(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._asked(lambda: self._get_once(path, query))

    def _get_once(self, path: str, query: dict[str, Any] | None) -> dict[str, Any]:
        for wait_s in RETRIES_S:
            try:
                return self._send("GET", path, params=query)
            except Unreachable as error:
                log.info("%s; asking again in %.1f s", error.message, wait_s)
                time.sleep(wait_s)
        return self._send("GET", path, params=query)

    def _download(self, path: str) -> Iterator[bytes]:
        with self._connected(), self.http.stream("GET", path) as response:
            if response.is_error:
                response.read()
                raise _problem(response)
            yield from response.iter_bytes(1024 * 1024)

    def _send(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        with self._connected():
            response = self.http.request(method, path, **arguments)
        if response.is_error:
            raise _problem(response)
        document: dict[str, Any] = response.json()
        return document

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn transport errors into Unreachable."""
        try:
            yield
        except httpx.TransportError as error:
            raise Unreachable(f"no API answers at {self.url} ({type(error).__name__})") from error


def _no_address(url: str) -> BadRequest:
    return BadRequest(
        f"not the address of an API: {url[:200]!r}", hint="an address begins with http://, as http://127.0.0.1:8080"
    )


def _json(request: ApiRequest) -> dict[str, Any]:
    return request.model_dump(mode="json", exclude_none=True)


class _Poll:
    """How long to wait between looks at something: longer, the longer it takes."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first look."""
        return time.monotonic() - self._started

    def wait_s(self) -> float:
        """Seconds until the next look."""
        return min(MOST_POLL_S, max(POLL_S, POLL_SHARE * self.elapsed_s))


def _is_small(paths: Collection[Path]) -> bool:
    """Whether files are few and small enough for one request. What cannot be read is reported by whoever opens it."""
    if len(paths) > FORM_FILES:
        return False
    with suppress(OSError):
        return sum(path.stat().st_size for path in paths) <= FORM_BYTES
    return True


def _open_all(named: Mapping[Path, str], stack: ExitStack) -> list[tuple[str, BinaryIO]]:
    """Open all files to be sent, given with their names.

    Raises:
        BadRequest: there are none, or some cannot be read: all of them are named, and nothing is sent.
    """
    opened: list[tuple[str, BinaryIO]] = []
    unreadable: list[str] = []
    for path, name in named.items():
        try:
            opened.append((name, stack.enter_context(path.open("rb"))))
        except OSError as error:
            unreadable.append(f"{str(path)!r} ({error.strerror})")
    if unreadable:
        raise BadRequest(
            f"{counted(len(unreadable), 'file')} cannot be read, so nothing was sent: {', '.join(unreadable)}",
            hint="repair or leave out these files; `k2d label --embedded` quarantines them and labels the others",
        )
    if not opened:
        raise no_audio([str(path) for path in named])
    return opened


def _batch_page(page: dict[str, Any]) -> list[BatchItem]:
    return BatchList.model_validate(page).batches


def _progress(status: BatchStatus, before: BatchStatus) -> PartialResult:
    """Progress of a batch, which was as in `before` when it was asked for."""
    counts, jobs, done_s = status.ledger.recordings, status.jobs, status.ledger.seconds.input
    done_before = before.ledger.recordings
    return PartialResult(
        seconds=done_s + (jobs.seconds_in_flight if jobs else 0.0),
        validated_s=done_s,
        audio_s=(jobs.audio_s if jobs else None) if counts.pending else done_s,
        recordings=counts.total - counts.pending,
        total=counts.total,
        recordings_before=done_before.total - done_before.pending,
        before_s=before.ledger.seconds.input,
        times_real_time=jobs.times_real_time if jobs and counts.pending else None,
        error=jobs.last_error if jobs else None,
    )


def _manifest_of(dataset: DatasetState) -> Manifest:
    if dataset.manifest is None:
        raise K2DError(f"dataset {dataset.name!r} is {dataset.state}: {dataset.error or 'it is not ready yet'}")
    return dataset.manifest


def _problem(response: httpx.Response) -> ApiError:
    try:
        document = response.json()
    except ValueError:
        document = {"detail": f"the API answered {response.status_code}: {response.text[:200]}"}
    return ApiError(document if isinstance(document, dict) else {}, response.status_code)


def _policy_query(policy: Policy) -> dict[str, Any]:
    """The query parameter for a policy: a preset's name, or the whole policy as JSON."""
    if PRESETS.get(policy.name) == policy:
        return {"policy": policy.name}
    return {"policy": policy.model_dump_json(exclude_none=True)}
