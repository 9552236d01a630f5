"""Chunks of a batch as a list, and everything about one chunk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from k2d.corpus import chunk_pages
from k2d.corpus.chunk import detail
from k2d.corpus.spoken import spoken_tokens
from k2d.documents import ChunkDetail, ChunkFilter
from k2d.filtering.distance import aligned_diff
from k2d.filtering.interlinear import interlinear
from k2d.filtering.policy import PRESETS, RULES, SHORT_NAMES
from k2d.keys import chunk_of
from k2d.schema import Reason, Status
from k2d.store import Lake
from services.filter.console.asked import asked_policy, choice, link, number, text_of
from services.filter.console.page import PageRoute, render, words_of
from services.filter.console.verdicts import REASONS, evidence_name, origin_name, sentence
from services.filter.context import InLake, InQueue
from services.filter.index_jobs import require_index

router = APIRouter(include_in_schema=False, route_class=PageRoute)

PAGE: Final = 50  # chunks of a list
AROUND: Final = 2  # chunks of the recording before and after one
FILTERS: Final = ("verdict", "reason", "recording", "text", "min_distance", "max_distance")
POLICY: Final = ("policy", "metric", "alpha", "rules", "on", "batch")  # of a query: what links to chunks keep


@router.get("/batches/{batch}/chunks")
def list_page(request: Request, batch: str, lake: InLake, queue: InQueue) -> Response:
    query = request.query_params
    asked, stored = asked_policy(query), lake.batches.get(batch)
    require_index([stored], lake, queue)
    where = ChunkFilter(
        verdict=choice(query, "verdict", Status),
        reason=choice(query, "reason", Reason),
        recording=text_of(query, "recording") or None,
        text=text_of(query, "text")[:200] or None,
        min_distance=number(query, "min_distance"),
        max_distance=number(query, "max_distance"),
    )
    cursor = text_of(query, "cursor") or None
    page = chunk_pages.page(lake, stored, asked.policy, where=where, limit=PAGE, cursor=cursor)
    leave = tuple({name for name in query if name not in POLICY})
    return render(
        request,
        "chunk_list.html",
        batch=stored,
        page=page,
        asked=asked,
        policy=asked.policy,
        presets=PRESETS,
        metric=SHORT_NAMES[asked.policy.metric],
        where={name: text_of(query, name) for name in FILTERS},
        statuses=(Status.ACCEPTED, Status.REJECTED),
        reasons=REASONS,
        kept=[(name, value) for name, value in query.multi_items() if name in ("metric", "alpha", "rules", "on")],
        diff=aligned_diff,
        chunk_query=link(query, leave=leave, batch=stored.id, policy=asked.value),
        more=link(query, cursor=page.next) if page.next else None,
        first=link(query) if cursor else None,
    )


@dataclass(frozen=True, slots=True)
class Share:
    """One piece of evidence, for a bar."""

    name: str
    log_odds: float
    share: float | None  # of what speaks against the label; None of what does not


@router.get("/chunks/{chunk_id}")
def chunk_page(request: Request, chunk_id: str, lake: InLake) -> Response:
    query = request.query_params
    asked = asked_policy(query)
    chunk = detail(lake, chunk_id, asked.policy, batch=text_of(query, "batch") or None)
    key, _ = chunk_of(chunk_id)
    texts = [hypothesis for hypothesis in chunk.hypotheses if not hypothesis.is_phonemes]
    before, after, last = _around(lake, key, chunk.index)
    leave = tuple({name for name in query if name not in POLICY})
    return render(
        request,
        "chunk.html",
        chunk=chunk,
        policy=asked.policy,
        asked=asked,
        presets=PRESETS,
        sentence=sentence(chunk, asked.policy, words_of(request.scope, request.headers, request.cookies)),
        reasons=REASONS,
        rules=RULES,
        metric=SHORT_NAMES[asked.policy.metric],
        short_names=SHORT_NAMES,
        tokens=spoken_tokens(chunk.teacher_text, chunk.segments),
        hypotheses=texts,
        phonemes=[hypothesis for hypothesis in chunk.hypotheses if hypothesis.is_phonemes],
        columns=interlinear(chunk.teacher_text, [hypothesis.text for hypothesis in texts]),
        shares=_shares(chunk.contributions),
        evidence_name=evidence_name,
        origin_name=origin_name,
        meta=(meta := lake.facts.meta(key)),
        recorded=json.dumps(meta, ensure_ascii=False, indent=1),
        before=before,
        after=after,
        last=last,
        batch=_batch(lake, text_of(query, "batch"), chunk),
        policy_query=link(query, leave=leave),
    )


def _shares(contributions: dict[str, float]) -> list[Share]:
    """Evidence by what it adds to the log-odds of the risk, the most first; the bias last."""
    against = sum(value for name, value in contributions.items() if value > 0 and name != "bias")
    shares = [
        Share(name, value, value / against if value > 0 and name != "bias" else None)
        for name, value in contributions.items()
    ]
    return sorted(shares, key=lambda share: (share.name == "bias", -share.log_odds))


def _around(lake: Lake, facts_key: str, index: int) -> tuple[Sequence[Any], Sequence[Any], int]:
    """The chunks of the same recording before and after one, and the index of the last one."""
    table, _ = lake.facts.shard(facts_key, ["id", "index", "start_s", "end_s", "teacher_text"])
    rows = table.to_pylist()
    place = next(place for place, row in enumerate(rows) if row["index"] == index)
    return rows[max(0, place - AROUND) : place], rows[place + 1 : place + 1 + AROUND], rows[-1]["index"]


def _batch(lake: Lake, asked: str, chunk: ChunkDetail) -> str | None:
    """The batch to go back to: the one that the link came from, or the newest with this chunk."""
    return asked if asked and lake.batches.entry(asked) is not None else chunk.batch
