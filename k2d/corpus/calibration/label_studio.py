"""Reviews in Label Studio's JSON: tasks to import there, and its export with annotations.

Format: https://labelstud.io/guide/tasks#Basic-Label-Studio-JSON-format and /guide/export. A task shows one segment; its
prediction is the label. LABELING_CONFIG is the project's labeling interface.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from k2d.corpus.calibration.reviews import ReviewRow
from k2d.errors import BadRequest
from k2d.store.reviews import ReviewVerdict

VERDICT, TEXT, AUDIO = "verdict", "transcription", "audio"  # names of the interface's controls
_CHOICES: Final = {
    "right": ReviewVerdict.RIGHT,
    "wrong": ReviewVerdict.WRONG,
    "nothing is said": ReviewVerdict.NOTHING,
    "cannot tell": ReviewVerdict.UNKNOWN,
}
LABELING_CONFIG: Final = f"""<View>
  <Audio name="{AUDIO}" value="$audio" hotkey="space"/>
  <Text name="label" value="$label"/>
  <Choices name="{VERDICT}" toName="{AUDIO}" choice="single" showInLine="true">
    <Choice value="right" hotkey="1"/><Choice value="wrong" hotkey="2"/>
    <Choice value="nothing is said" hotkey="3"/><Choice value="cannot tell" hotkey="4"/>
  </Choices>
  <TextArea name="{TEXT}" toName="{AUDIO}" rows="2" editable="true" maxSubmissions="1"/>
</View>
"""


@dataclass(frozen=True, slots=True)
class ImportedReview:
    """A review of another tool's file."""

    segment: str
    verdict: ReviewVerdict
    reference: str | None
    reviewer: str | None  # None: the file does not say
    at: str  # ISO 8601; empty: the file does not say
    seconds: float | None = None


def tasks_of(rows: Iterable[ReviewRow], address: Callable[[ReviewRow], str]) -> list[dict[str, Any]]:
    """Make a task for each row. `address`: of a segment's audio, as Label Studio is to fetch it.

    path.write_text(json.dumps(tasks_of(rows, lambda row: f"https://audio.example/{row.id}.flac")))
    """
    return [_task(row, address(row)) for row in rows]


def reviews_in(text: str) -> Iterator[ImportedReview]:
    """Iterate over the annotations of Label Studio's export (JSON), in its order. Skipped tasks have none.

        list(reviews_in(Path("project-1.json").read_text("utf-8")))

    Raises:
        BadRequest: it is not such an export, or a task is not one of `tasks_of`.
    """
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"not JSON: {error}", hint="export the project from Label Studio as JSON") from error
    if not isinstance(tasks, list):
        raise BadRequest("not an export of Label Studio: no list of tasks", hint="export as JSON, not as JSON-MIN")
    for number, task in enumerate(tasks, start=1):
        try:
            segment, annotations = str(task["data"]["segment"]), list(task.get("annotations") or [])
            found = [_annotation(segment, own) for own in annotations if not own.get("was_cancelled")]
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise BadRequest(
                f"task {number} is none that k2d exported: {type(error).__name__}: {error}",
                hint="tasks carry the segment's id in data.segment; export the project as JSON",
            ) from error
        yield from found


def _task(row: ReviewRow, address: str) -> dict[str, Any]:
    data = {
        "audio": address,
        "segment": row.id,
        "label": row.label,
        "around": row.around,
        "recording": row.recording,
        "start_s": row.start_s,
        "end_s": row.end_s,
        "hypotheses": row.hypotheses,
        "risk": row.risk,
        "weight": row.weight,
        "draws": row.draws,
    }
    task: dict[str, Any] = {"data": data, "predictions": [{"model_version": "label", "result": [_text(row.label)]}]}
    if row.reviewed:
        task["annotations"] = [{"result": _result(row)}]
    return task


def _result(row: ReviewRow) -> list[dict[str, Any]]:
    if row.reference:
        return [_text(row.reference)]
    choice = "nothing is said" if row.reference == "" else "right" if row.correct else "wrong"
    return [{"from_name": VERDICT, "to_name": AUDIO, "type": "choices", "value": {"choices": [choice]}}]


def _text(text: str) -> dict[str, Any]:
    return {"from_name": TEXT, "to_name": AUDIO, "type": "textarea", "value": {"text": [text]}}


def _annotation(segment: str, annotation: dict[str, Any]) -> ImportedReview:
    verdict, text = None, None
    for result in annotation["result"]:
        value = result["value"]
        if result["from_name"] == TEXT:
            text = value["text"] if isinstance(value["text"], str) else " ".join(value["text"])
        elif result["from_name"] == VERDICT:
            verdict = _CHOICES[value["choices"][0]]
    if verdict in (ReviewVerdict.RIGHT, ReviewVerdict.NOTHING, ReviewVerdict.UNKNOWN):
        text = None  # the choice says it all; the text may be the prediction, left as it was
    elif text is not None:
        verdict = ReviewVerdict.TEXT if text.strip() else ReviewVerdict.NOTHING
        text = text if text.strip() else None
    if verdict is None:
        raise ValueError("an annotation without a choice and without a text")
    lead = annotation.get("lead_time")
    return ImportedReview(
        segment=segment,
        verdict=verdict,
        reference=text,
        reviewer=_reviewer(annotation.get("completed_by")),
        at=_time(annotation.get("created_at")),
        seconds=float(lead) if isinstance(lead, int | float) and lead >= 0 else None,
    )


def _reviewer(who: Any) -> str | None:
    """The annotator: an id in plain exports, an object with the e-mail address in others."""
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return None if who is None else f"label-studio:{who}"[:100]


def _time(moment: Any) -> str:
    """A time as ISO 8601 in UTC; empty if there is none."""
    if not moment:
        return ""
    parsed = datetime.fromisoformat(str(moment).replace("Z", "+00:00"))
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="microseconds")
