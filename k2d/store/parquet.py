"""Writes Parquet deterministically: the same rows always give the same bytes.

All options are fixed, no time is stored, and row groups are cut by row count. Bytes may change with the version of
pyarrow, which writes its name into the file. Pages carry checksums, and so do the metadata in the footer: bytes that a
disk changes do not become another label. The audio column holds FLAC and is therefore neither compressed nor
dictionary-encoded, and has no statistics.
"""

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from k2d.schema import SAMPLE_RATE_HZ

META_KEY: Final = b"k2d"
META_DIGEST_KEY: Final = b"k2d.sha256"
END_KEY: Final = b"k2d.end"  # metadata that were known only at the end
END_DIGEST_KEY: Final = b"k2d.end.sha256"
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

    def add_meta(self, meta: Mapping[str, Any]) -> None:
        """Add metadata that are known only at the end; `meta_of` returns them with those of `describe`."""
        data = dumps(meta)
        self.add_key_value_metadata({END_KEY: data, END_DIGEST_KEY: _digest(data)})

    def close(self) -> None:
        """Write the footer."""
        try:
            super().close()
        finally:
            self.is_open = False

    def abandon(self) -> None:
        """Do not write the footer: the file is about to be removed."""
        self.is_open = False


def writer(file: BinaryIO, schema: pa.Schema, *, checksums: bool = True) -> ParquetWriter:
    """Create a writer with this project's options.

        with writer(file, describe(schema, meta)) as out:
            out.write_table(table)

    Args:
        file: open for writing in binary mode.
        schema: with the metadata of `describe`.
        checksums: of pages and metadata; not needed where a manifest has the digest of the whole file.
    """
    if checksums:
        metadata = schema.metadata
        schema = schema.with_metadata(metadata | {META_DIGEST_KEY: _digest(metadata[META_KEY])})
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
        write_page_checksum=checksums,
        store_schema=True,
    )


def describe(schema: pa.Schema, meta: Mapping[str, Any]) -> pa.Schema:
    """Add metadata to a schema: `meta` (JSON values and dataclasses), and the feature types for `datasets`."""
    features = {"info": {"features": {field.name: _feature(field.type) for field in schema}}}
    return schema.with_metadata({META_KEY: dumps(meta), HF_KEY: dumps(features)})


def check(file: pq.ParquetFile) -> None:
    """Check what a footer says of the columns, which is there twice; pages are checked by their checksums when they are
    read.

    Raises:
        ArrowInvalid: it is damaged.
    """
    schema = file.schema_arrow  # made anew at each look
    stored = (file.metadata.metadata or {}).get(b"ARROW:schema")
    if stored is not None:
        try:
            written = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored)))
        except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
            raise pa.ArrowInvalid(f"its schema is damaged: {error}") from error
        if not written.equals(schema):
            raise pa.ArrowInvalid("its columns are not those that were written")
    for field in schema:
        for path, kind in _leaf_types(field.name, field.type):
            if pa.types.is_binary(kind) and not path.endswith("audio.bytes"):
                raise pa.ArrowInvalid(f"its column {path} is said to be no text")


def meta_of(file: pq.ParquetFile) -> dict[str, Any]:
    """Read the metadata that `describe` and `ParquetWriter.add_meta` added.

    Raises:
        ArrowInvalid: they are damaged or gone.
    """
    metadata = file.metadata.metadata or {}
    if META_KEY not in metadata:
        raise pa.ArrowInvalid("its metadata are gone")
    meta = _decoded(metadata[META_KEY], metadata.get(META_DIGEST_KEY))
    end, end_digest = metadata.get(END_KEY), metadata.get(END_DIGEST_KEY)
    if (end is None) != (end_digest is None):
        raise pa.ArrowInvalid("a part of its metadata is gone")
    return meta if end is None else meta | _decoded(end, end_digest)


def _decoded(data: bytes, digest: bytes | None) -> dict[str, Any]:
    if digest is not None and _digest(data) != digest:  # files of 0.1 have none
        raise pa.ArrowInvalid("its metadata have another digest than was written")
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError, RecursionError) as error:
        raise pa.ArrowInvalid(f"its metadata are damaged: {error}") from error


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


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


def _leaves(path: str, kind: pa.DataType) -> Iterator[str]:
    """The names of the Parquet columns of an Arrow field."""
    return (leaf for leaf, _ in _leaf_types(path, kind))


def _leaf_types(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The names of the Parquet columns of an Arrow field, and their types."""
    if pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _leaf_types(f"{path}.{kind.field(index).name}", kind.field(index).type)
    elif pa.types.is_list(kind):
        yield from _leaf_types(f"{path}.list.element", kind.value_type)
    else:
        yield path, kind


def _feature(kind: pa.DataType) -> Any:
    """The feature type of `datasets` for an Arrow type; a list is written as [type], which all its versions read."""
    if kind == AUDIO:
        return {"sampling_rate": SAMPLE_RATE_HZ, "_type": "Audio"}
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}
