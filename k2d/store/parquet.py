"""Writes Parquet deterministically: the same rows always give the same bytes.

All options are fixed, no time is stored, and row groups are cut by row count. Bytes may change with the version of
pyarrow, which writes its name into the file. The audio column holds FLAC and is therefore neither compressed nor
dictionary-encoded, and has no statistics.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from k2d.schema import SAMPLE_RATE_HZ

META_KEY: Final = b"k2d"
HF_KEY: Final = b"huggingface"
ZSTD_LEVEL: Final = 3  # zstd's own default
_SURROGATES: Final = re.compile("[\ud800-\udfff]")

AUDIO: Final = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the storage type of `datasets.Audio`

# field names as in k2d.schema.Segment, in its order
SEGMENT: Final = pa.struct(
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
        ("origin", pa.string()),
        ("teacher_text", pa.string()),
    ]
)


class ParquetWriter(pq.ParquetWriter):  # type: ignore[misc]  # pyarrow has no types
    """pyarrow's ParquetWriter, but closed at most once.

    On a full disk `close` fails; pyarrow's would then fail again when the object is garbage-collected.
    """

    def close(self) -> None:
        """Write the footer."""
        try:
            super().close()
        finally:
            self.is_open = False

    def abandon(self) -> None:
        """Do not write the footer: the file is about to be removed."""
        self.is_open = False


def writer(file: BinaryIO, schema: pa.Schema) -> ParquetWriter:
    """Create a writer with this project's options.

        with writer(file, schema) as out:
            out.write_table(table)

    `file` must be open for writing in binary mode.
    """
    paths = [path for field in schema for path in _leaves(field.name, field.type)]
    return ParquetWriter(
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
    """Add metadata to a schema: `meta` (JSON values and dataclasses), and the feature types for `datasets`."""
    features = {"info": {"features": {field.name: _feature(field.type) for field in schema}}}
    return schema.with_metadata({META_KEY: dumps(meta), HF_KEY: dumps(features)})


def meta_of(schema: pa.Schema) -> dict[str, Any]:
    """Read the metadata that `describe` added; empty if there is none.

    Raises:
        ArrowInvalid: they are damaged.
    """
    data = (schema.metadata or {}).get(META_KEY)
    try:
        return dict(json.loads(data)) if data else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise pa.ArrowInvalid(f"its metadata are damaged: {error}") from error


def dumps(value: Any) -> bytes:
    """Encode as canonical JSON: sorted keys, UTF-8, dataclasses as objects.

    Raises:
        ValueError: the value has a NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(value, default=_plain, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return printable(text, escape="\\\\").encode()


def printable(text: str, *, escape: str = "\\") -> str:
    """Replace lone surrogates, which JSON and Arrow cannot hold, by escapes like \\udcff.

    They occur in file names that are not UTF-8.
    """
    return _SURROGATES.sub(lambda match: f"{escape}u{ord(match[0]):04x}", text)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")


def _leaves(path: str, kind: pa.DataType) -> Iterable[str]:
    """The names of the Parquet columns of an Arrow field."""
    if pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _leaves(f"{path}.{kind.field(index).name}", kind.field(index).type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path


def _feature(kind: pa.DataType) -> Any:
    """The feature type of `datasets` for an Arrow type; a list is written as [type], which all its versions read."""
    if kind == AUDIO:
        return {"sampling_rate": SAMPLE_RATE_HZ, "_type": "Audio"}
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}
