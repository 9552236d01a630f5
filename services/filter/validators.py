"""The endpoint that compares validators."""

from typing import Annotated

from fastapi import APIRouter, Query

from k2d.corpus.agreement import compare
from k2d.corpus.independence import ValidatorsCompared
from k2d.documents import BATCHES, MOST_COMPARED, NameOrId
from services.filter.context import InLake
from services.web.pools import QUESTIONS
from services.web.problems import EVERYWHERE, responses

router = APIRouter(prefix="/v1/validators", tags=["policies"], responses=EVERYWHERE)


@router.get("", summary="Which validator shares the teacher's errors least", responses=responses(400, 404))
async def compare_validators(
    lake: InLake,
    batch: Annotated[
        list[NameOrId],
        Query(min_length=1, max_length=BATCHES, description="Batches with the same recordings, by id or name."),
    ],
    most: Annotated[int, Query(ge=100, le=MOST_COMPARED, description="Chunks to compare.")] = MOST_COMPARED,
) -> ValidatorsCompared:
    return await QUESTIONS.run(lambda: compare(lake, list(dict.fromkeys(batch)), most=most))
