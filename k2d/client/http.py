"""The Python SDK: the labeling API as a backend. Needs nothing but HTTP."""

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import stamina

from k2d import sources
from k2d.client.backend import OnStatus
from k2d.corpus.views import ChunkFilter
from k2d.errors import K2DError
from k2d.filtering.policy import DEFAULT, PRESETS, Policy
from k2d.labeling.request import LabelRequest
from k2d.schema import Metric

POLL_S = 0.5
TERMINAL = ("done", "cancelled")


class RemoteError(K2DError):
    """The API answered with a problem document; `remote_code` is its code."""

    code = "remote_error"

    def __init__(self, document: dict[str, Any], status: int) -> None:
        detail = document.get("detail") or f"the API answered {status}"
        super().__init__(str(detail), hint=document.get("hint"), remote_code=document.get("code"), remote_status=status)


class Unreachable(K2DError):
    """Nobody answers at the API's address."""

    code = "api_unreachable"
    status = 503
    hint = "is it running? `k2d up` starts one; K2D_API_URL says where to look"


class Client:
    """A labeling API over HTTP. GETs are retried on connection errors and 503; writes are idempotent by design."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        # uploads may take as long as they take; connecting and silence may not
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=httpx.Timeout(timeout_s, connect=5.0))

    @property
    def where(self) -> str:
        return f"the API at {self.url}"

    def is_up(self) -> bool:
        """Whether a k2d API answers there."""
        try:
            answer = self.http.get("/healthz", timeout=1.0)
            return answer.status_code == httpx.codes.OK and "version" in answer.json()
        except (httpx.HTTPError, ValueError):
            return False

    # ---- the backend ----------------------------------------------------------------------------------------------

    def label(self, paths: Sequence[str], request: LabelRequest, *, wait: bool, on_status: OnStatus) -> dict[str, Any]:
        status = self._post_files(paths, request, dry_run=False)
        while wait and status["state"] not in TERMINAL:
            self._tell(status, on_status)
            if status["state"] == "stalled" and (status["jobs"] or {}).get("jobs_failed"):
                error = (status["jobs"] or {}).get("last_error") or "see the worker's log"
                raise K2DError(f"the batch cannot go on: {error}", hint=f"mend it, then: k2d retry {status['name']}")
            time.sleep(POLL_S)
            status = self._get(f"/v1/batches/{status['id']}")
        self._tell(status, on_status)
        return status

    def forecast(self, paths: Sequence[str], request: LabelRequest) -> dict[str, Any]:
        return self._post_files(paths, request, dry_run=True)

    def batches(self) -> list[dict[str, Any]]:
        return list(self._pages("/v1/batches", "batches", {"limit": 200}))

    def status(self, batch: str, policy: Policy) -> dict[str, Any]:
        return self._get(f"/v1/batches/{batch}", _judged_by(policy))

    def chunks(self, batch: str, policy: Policy, where: ChunkFilter) -> Iterator[dict[str, Any]]:
        query = {key: getattr(where, key) for key in where.__slots__ if getattr(where, key) is not None}
        return self._pages("/v1/chunks", "chunks", {"batch": batch, "limit": 1000, **query, **_judged_by(policy)})

    def chunk(self, chunk_id: str, policy: Policy = DEFAULT) -> dict[str, Any]:
        return self._get(f"/v1/chunks/{quote(chunk_id, safe='')}", _judged_by(policy))

    def preview(
        self, batches: Sequence[str], policy: Policy, *, metrics: Sequence[Metric] | None = None
    ) -> dict[str, Any]:
        curve = None if metrics is None else [str(metric) for metric in metrics]
        body = {"batches": list(batches), "policy": policy.model_dump(mode="json"), "curve": curve}
        return self._send("POST", "/v1/policies/preview", json=body)

    def freeze(
        self, name: str, batches: Sequence[str], policy: Policy, *, without: Collection[str] = ()
    ) -> dict[str, Any]:
        body = {
            "name": name,
            "batches": list(batches),
            "policy": policy.model_dump(mode="json"),
            "without": sorted(set(without)),
        }
        dataset = self._send("POST", "/v1/datasets", json=body)
        while dataset["state"] == "building":
            time.sleep(POLL_S)
            dataset = self._get(f"/v1/datasets/{name}")
        if dataset["state"] == "failed":
            raise K2DError(f"freezing {name!r} failed: {dataset['error']}")
        manifest: dict[str, Any] = dataset["manifest"]
        return manifest

    def export(self, name: str, format_: str, folder: Path) -> dict[str, Any]:
        from k2d.datasets.pull import export_pulled  # needs Arrow; the rest of the client does not

        return export_pulled(self, name, format_, folder)

    def resume(self) -> dict[str, int]:
        missing: dict[str, int] = self._send("POST", "/v1/resume")["batches"]
        return missing

    # ---- more acts ------------------------------------------------------------------------------------------------

    def cancel(self, batch: str) -> dict[str, Any]:
        return self._send("DELETE", f"/v1/batches/{batch}")

    def retry(self, batch: str) -> dict[str, Any]:
        return self._send("POST", f"/v1/batches/{batch}/retry")

    def manifest(self, name: str) -> dict[str, Any]:
        """A frozen dataset's manifest."""
        dataset = self._get(f"/v1/datasets/{name}")
        if dataset["state"] != "ready":
            raise K2DError(f"dataset {name!r} is {dataset['state']}: {dataset.get('error') or 'not there yet'}")
        manifest: dict[str, Any] = dataset["manifest"]
        return manifest

    def shard(self, name: str, number: int) -> Iterator[bytes]:
        """The bytes of one Parquet shard, as they arrive."""
        with self._connected(), self.http.stream("GET", f"/v1/datasets/{name}/shards/{number}") as answer:
            if answer.is_error:
                answer.read()
                raise _problem(answer)
            yield from answer.iter_bytes(1024 * 1024)

    # ---- HTTP -----------------------------------------------------------------------------------------------------

    def _post_files(self, paths: Sequence[str], request: LabelRequest, *, dry_run: bool) -> dict[str, Any]:
        data = {key: getattr(request, key) for key in request.__slots__ if getattr(request, key) is not None}
        with ExitStack() as files:
            parts = [
                ("files", (str(path), files.enter_context(Path(path).open("rb")), "application/octet-stream"))
                for path in sources.expand(paths)
            ]
            form = {key: json.dumps(value) if isinstance(value, bool) else value for key, value in data.items()}
            return self._send(
                "POST", "/v1/batches", params={"dry_run": dry_run}, files=parts, data=form, timeout=httpx.Timeout(None)
            )

    def _tell(self, status: dict[str, Any], on_status: OnStatus) -> None:
        book, jobs = status["ledger"], status["jobs"] or {}
        counts = book["recordings"]
        on_status(
            {
                "seconds": book["seconds"]["in"] + jobs.get("seconds_in_flight", 0.0),
                "recordings": counts["total"] - counts["pending"],
                "total": counts["total"],
                "error": jobs.get("last_error"),
            }
        )

    def _pages(self, path: str, member: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            found = self._get(path, query | ({"cursor": cursor} if cursor else {}))
            yield from found[member]
            cursor = found["next"]
            if cursor is None:
                return

    def _get(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        for attempt in stamina.retry_context(on=Unreachable, attempts=4, timeout=20.0):
            with attempt:
                return self._send("GET", path, params=query)
        raise Unreachable(f"nobody answers at {self.url}")

    def _send(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        with self._connected():
            answer = self.http.request(method, path, **arguments)
        if answer.is_error:
            raise _problem(answer)
        document: dict[str, Any] = answer.json()
        return document

    def _connected(self) -> "_Connected":
        return _Connected(self.url)


class _Connected:
    """Turns transport errors into Unreachable."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, httpx.TransportError):
            raise Unreachable(f"nobody answers at {self.url} ({type(error).__name__})") from error


def _problem(answer: httpx.Response) -> RemoteError:
    try:
        document = answer.json()
    except ValueError:
        document = {"detail": f"the API answered {answer.status_code}: {answer.text[:200]}"}
    return RemoteError(document if isinstance(document, dict) else {}, answer.status_code)


def _judged_by(policy: Policy) -> dict[str, Any]:
    """A preset by its name, any other policy as a whole."""
    if PRESETS.get(policy.name) == policy:
        return {"policy": policy.name}
    return {"policy": policy.model_dump_json(exclude_none=True)}
