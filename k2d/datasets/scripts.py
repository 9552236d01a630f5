"""Rows of a dataset in one script: converts their texts, keeps the teacher's beside them, counts scripts as heard."""

from collections import Counter
from typing import Any, Final

import pyarrow as pa

from k2d.schema import LabelScript, Script, join_text
from k2d.store.manifest import DatasetScript, DatasetScriptRows
from k2d.text.script import CONVERTER, SCRIPT_VERSION, STANDARDS, convert, convert_parts
from k2d.wording import counted

RAW_TEXT: Final = "raw_text"  # column: the label as the teacher wrote it


def described(script: Script) -> DatasetScript | None:
    """How labels are converted to a script, for the manifest; None if they stay as heard."""
    if script is Script.AS_HEARD:
        return None
    return DatasetScript(name=script, standard=STANDARDS[script], converter=CONVERTER, version=SCRIPT_VERSION)


def with_raw_text(schema: pa.Schema) -> pa.Schema:
    """The schema of rows in one script: `raw_text` stands after `text`."""
    if RAW_TEXT in schema.names:
        return schema
    return schema.insert(schema.get_field_index("text") + 1, pa.field(RAW_TEXT, pa.string()))


def in_script(row: dict[str, Any], script: Script) -> dict[str, Any]:
    """A row as heard with its texts in one script, and what the teacher wrote in `raw_text`.

    in_script(row, Script.TRADITIONAL)["text"]  # "頭髮", if row["text"] is "头发"
    """
    texts = convert_parts([segment["text"] for segment in row["segments"]], script)
    return row | {
        "text": join_text(texts),
        RAW_TEXT: row.get(RAW_TEXT, row["text"]),
        "segments": [segment | {"text": text} for segment, text in zip(row["segments"], texts, strict=True)],
        "previous_text": convert(row["previous_text"], script),  # equals `text` of the row before
    }


def scripts_in_words(rows: DatasetScriptRows) -> str:
    """The counts for a card: "16 rows Traditional, 1 Simplified, 6 mixed, 1 neither"."""
    traditional = f"{counted(rows.traditional, 'row')} Traditional"
    return f"{traditional}, {rows.simplified} Simplified, {rows.mixed} mixed, {rows.neither} neither"


def script_rows(counts: Counter[LabelScript]) -> DatasetScriptRows:
    """How many rows are in which script, for the manifest."""
    return DatasetScriptRows(**{str(script): counts[script] for script in LabelScript})
