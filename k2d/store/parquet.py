"""How this project writes Parquet: the same rows always give the same bytes.

Options are pinned, no clock is read, row groups are cut by row count. Bytes may change with the version of pyarrow,
which signs its files. Audio is FLAC already: its column is neither compressed nor dictionary-coded nor summarised.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from k2d.schema import SAMPLE_RATE_HZ

META_KEY = b"k2d"
HF_KEY = b"huggingface"
ZSTD_LEVEL = 3
_SURROGATES = re.compile("[\ud800-\udfff]")

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # what `datasets` calls Audio

# field names as in k2d.schema.Segment, in its order
SEGMENT = pa.struct(
    [
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("text", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("avg_logprob", pa.float64()),
        ("no_speech_prob", pa.float64()),
        ("compression_ratio", pa.float64()),
        ("temperature", pa.float64()),
        ("language", pa.string()),
    ]
)


class Writer(pq.ParquetWriter):  # type: ignore[misc]  # pyarrow has no types
    """A ParquetWriter that closes once: a full disk fails the close, and must not fail it again at collection."""

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.is_open = False

    def abandon(self) -> None:
        """Never mind the footer: the file is going to be removed."""
        self.is_open = False


def writer(file: BinaryIO, schema: pa.Schema) -> Writer:
    """A Parquet writer with this project's options over `file`, open for writing in binary mode."""
    paths = [path for field in schema for path in _leaves(field.name, field.type)]
    return Writer(
        file,
        schema,
        compression={path: "NONE" if path == "audio.bytes" else "ZSTD" for path in paths},
        compression_level={path: ZSTD_LEVEL for path in paths if path != "audio.bytes"},
        use_dictionary=[path for path in paths if path != "audio.bytes"],
        write_statistics=[path for path in paths if path != "audio.bytes"],
        version="2.6",
        data_page_version="1.0",
        store_schema=True,
    )


def describe(schema: pa.Schema, meta: Mapping[str, Any]) -> pa.Schema:
    """Attach `meta` (JSON values and dataclasses) and the feature types that `datasets` reads."""
    features = {"info": {"features": {field.name: _feature(field.type) for field in schema}}}
    return schema.with_metadata({META_KEY: dumps(meta), HF_KEY: dumps(features)})


def meta_of(schema: pa.Schema) -> dict[str, Any]:
    """What `describe` attached; empty when there is none."""
    found = (schema.metadata or {}).get(META_KEY)
    return dict(json.loads(found)) if found else {}


def dumps(value: Any) -> bytes:
    """Canonical JSON: sorted keys, UTF-8, dataclasses as objects.

    Raises:
        ValueError: NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(value, default=_plain, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return printable(text, escape="\\\\").encode()


def printable(text: str, *, escape: str = "\\") -> str:
    """Text that JSON and Arrow can hold: lone surrogates (file names that are not UTF-8) are spelled out, \\udcff."""
    return _SURROGATES.sub(lambda found: f"{escape}u{ord(found[0]):04x}", text)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")


def _leaves(path: str, kind: pa.DataType) -> Iterable[str]:
    """Parquet's names of the columns that hold the values of an Arrow field."""
    if pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _leaves(f"{path}.{kind.field(index).name}", kind.field(index).type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path


def _feature(kind: pa.DataType) -> Any:
    """The type in the words of `datasets`; a list is written as [type], which all its versions understand."""
    if kind == AUDIO:
        return {"sampling_rate": SAMPLE_RATE_HZ, "_type": "Audio"}
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}
