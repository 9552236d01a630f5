"""Drafts of batches: what is sent to them and named in them, and the batch that they become."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

from k2d import sources
from k2d.corpus.index import take_back_outdated
from k2d.documents import (
    BatchByReference,
    BatchOptions,
    BatchStatus,
    ChunkCounts,
    Jobs,
    Ledger,
    LedgerSeconds,
    MissingSource,
    MissingSources,
    RecordingCounts,
    SourceDeclaration,
)
from k2d.errors import BadRequest, Conflict
from k2d.filtering.policy import DEFAULT
from k2d.labeling.accept import accept, split_stored
from k2d.labeling.request import check_choice, check_options
from k2d.schema import Batch, BatchState, Source
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.drafts import PART, Draft, DraftKind, UriPart
from k2d.store.partial import partial_key
from k2d.store.uploads import upload_uri
from k2d.wording import counted

DESCRIBED_AT_ONCE: Final = 16  # sources that are asked for at the same time
IN_THE_REQUEST: Final = 16  # URIs up to which a request itself looks at them, so that a typo is answered at once
NAMED: Final = 10  # files in an error


def open_draft(options: BatchOptions, lake: Lake, settings: Settings, *, adds: bool) -> Draft:
    """Open a draft that takes files.

    Raises:
        BadRequest, ModelRefused: as for a batch of these options.
        StoreError
    """
    _check(options, settings, adds=adds)
    return lake.drafts.open(DraftKind.FILES, _stored(options), adds=adds)


def reference_draft(body: BatchByReference, lake: Lake, settings: Settings, *, adds: bool) -> Draft:
    """Store a draft of URIs, in parts; none is looked at. Errors as for `open_draft`."""
    _check(body, settings, adds=adds)
    uris = dict.fromkeys(body.sources)
    return lake.drafts.open(DraftKind.URIS, _stored(body), adds=adds, uris=[UriPart(part) for part in _parts(uris)])


def _check(options: BatchOptions, settings: Settings, *, adds: bool) -> None:
    check_choice(options, settings)
    check_options(options, settings)
    if adds and options.name is None:
        raise BadRequest("the batch to add to has no name", hint="give its name")


def _stored(options: BatchOptions) -> dict[str, Any]:
    return options.model_dump(mode="json", exclude_none=True, exclude={"sources", "files"})


def _parts(items: Iterable[str]) -> Iterable[tuple[str, ...]]:
    iterator = iter(items)
    while part := tuple(islice(iterator, PART)):
        yield part


# ---- files --------------------------------------------------------------------------------------------------------


def require_open(draft: Draft, lake: Lake) -> None:
    """
    Raises:
        Conflict: the draft takes no files, or no more.
    """
    if draft.kind is not DraftKind.FILES:
        raise Conflict(f"batch {draft.name!r} is made of URIs", hint="open one with open=true to send files")
    batch_id = lake.drafts.closed(draft.id)
    if batch_id is not None:
        raise Conflict(
            f"batch {draft.name!r} is closed", hint="open it again with add=true to send more", batch_id=batch_id
        )


def declare(draft: Draft, declared: Sequence[SourceDeclaration], lake: Lake) -> MissingSources:
    """Add files to a draft by name and hash; returns those whose bytes are not there.

    Raises:
        Conflict: one name stands for two files, or the draft is closed.
        StoreError
    """
    require_open(draft, lake)
    by_name: dict[str, str] = {}
    for item in declared:
        if by_name.setdefault(item.name, item.sha256) != item.sha256:
            raise Conflict(f"two different files are called {item.name[:200]!r}", hint="give each a name of its own")
    lake.drafts.add(draft.id, [source_of(item.name, item.sha256, item.size_bytes) for item in declared])
    unique = {item.sha256: item for item in declared}
    there = dict(zip(unique, lake.files.many(lake.uploads.has, unique), strict=True))
    missing = [
        MissingSource(name=item.name, sha256=sha256, offset=lake.partial.offset(sha256))
        for sha256, item in unique.items()
        if not there[sha256]
    ]
    return MissingSources(missing=missing)


def source_of(name: str, sha256: str, size: int) -> Source:
    """An upload as a source."""
    key = sources.content_key(sha256)
    return Source(name=name, uri=upload_uri(sha256), key=key, size_bytes=size, sha256=sha256)


def upload_key(draft: Draft, name: str, sha256: str | None) -> str:
    """Under which key the parts of a file are kept."""
    return partial_key(sha256=sha256, draft=draft.id, name=name)


# ---- closing ------------------------------------------------------------------------------------------------------


def close_draft(draft: Draft, lake: Lake, settings: Settings) -> Batch:
    """Make and store the batch of a draft; closing it again returns the same one.

    Raises:
        BadRequest: it has no sources.
        Conflict: files are missing, or the name belongs to another batch.
        StoreError
    """
    closed = lake.drafts.closed(draft.id)
    if closed is not None:
        return lake.batches.get(closed)
    options = BatchOptions.model_validate(draft.options)
    if draft.kind is DraftKind.FILES:
        files = lake.drafts.sources(draft.id)
        _require_all(files, lake)
    else:
        files = lake.drafts.described(draft.id)
    files = split_stored(files, options, lake, settings, allowed=settings.allowed_sources)
    batch = lake.batches.get(accept(files, options, lake, settings, adds=draft.adds).id)
    lake.drafts.close(draft.id, batch.id)
    take_back_outdated(lake, batch)
    return batch


def _require_all(files: Sequence[Source], lake: Lake) -> None:
    if not files:
        raise BadRequest("the batch has no files", hint="send some before it is closed")
    hashes = list(dict.fromkeys(source.sha256 or "" for source in files))
    there = dict(zip(hashes, lake.files.many(lake.uploads.has, hashes), strict=True))
    missing = [source.name for source in files if not there[source.sha256 or ""]]
    if missing:
        names = ", ".join(repr(name[:100]) for name in missing[:NAMED]) + (" …" if len(missing) > NAMED else "")
        raise Conflict(
            f"not sent yet, of {counted(len(files), 'file')}: {names}",
            hint="send them, then close the batch; or open another one without them",
            missing=len(missing),
        )


def describe_uris(part: UriPart, settings: Settings, patient: bool) -> list[Source]:
    """Describe a part of a draft, several sources at the same time.

    Raises:
        SourceUnreachable: a storage does not answer, and `patient` is set.
    """
    names = part.names or (None,) * len(part.uris)

    def describe(uri: str, name: str | None) -> Source:
        return sources.describe_lenient(uri, name, allowed=settings.allowed_sources, patient=patient)

    with ThreadPoolExecutor(DESCRIBED_AT_ONCE, thread_name_prefix="describe") as pool:
        return list(pool.map(describe, part.uris, names))


# ---- looking ------------------------------------------------------------------------------------------------------


def draft_status(draft: Draft, lake: Lake, settings: Settings, jobs: Jobs | None) -> BatchStatus:
    """A draft as the status of a batch in which nothing is labeled yet."""
    options = BatchOptions.model_validate(draft.options)
    teacher, validator, longform = check_options(options, settings)
    is_open = draft.kind is DraftKind.FILES
    state = BatchState.OPEN if is_open else BatchState.PREPARING
    if not is_open and jobs is not None and not (jobs.jobs_queued or jobs.jobs_running):
        state = BatchState.STALLED  # its jobs failed for good, or Redis lost them
    total = len(lake.drafts.sources(draft.id)) if is_open else draft.count
    nothing = LedgerSeconds(input=0, accepted=0, salvaged=0, rejected=0, quarantined=0, silence=0)
    return BatchStatus(
        id=draft.id,
        name=draft.name,
        created_at=draft.created_at,
        recordings=total,
        teacher=teacher,
        validator=validator,
        language=longform.decode.language,
        state=state,
        ledger=Ledger(
            batch=draft.id,
            name=draft.name,
            policy=DEFAULT.name,
            seconds=nothing,
            chunks=ChunkCounts(accepted=0, salvaged=0, rejected=0),
            recordings=RecordingCounts(total=total, labeled=0, quarantined=0, pending=total),
            wall_s=0.0,
        ),
        jobs=jobs,
        quarantined=[],
        quarantined_total=0,
    )
