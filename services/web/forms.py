"""Reads multipart forms as they arrive: files go to disk block by block, whatever their size and number.

Starlette's own parser keeps up to 1 MB of every file in memory, so a thousand small files are a gigabyte.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from k2d.errors import BadRequest
from services.web.pools import STORE

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FLUSH_BYTES: Final = 256 * 1024  # of a request in memory before they are written
CHARSETS: Final = frozenset((b"", b"utf-8", b"utf8", b"us-ascii", b"ascii"))  # browsers send none
MAX_FIELD_BYTES: Final = 1 << 20  # of all fields of a form together
MAX_NAME_CHARACTERS: Final = 4096  # of a file; longer paths exist on no system
_HINT: Final = "send multipart/form-data as RFC 7578 has it; curl -F does"
# HTML's form encoding escapes quotes and line breaks in names, and only these
_ESCAPED: Final = (("%22", '"'), ("%0D", "\r"), ("%0A", "\n"))


class PartSink(Protocol):
    """Takes the bytes of one file of a form. Called in a thread."""

    def write(self, block: bytes) -> object: ...

    def finish(self) -> object:
        """No more bytes follow."""
        ...


Sink = TypeVar("Sink", bound=PartSink)


@dataclass(frozen=True, slots=True)
class FormFile(Generic[Sink]):
    """A file of a form."""

    field: str
    name: str  # as the client's user saw it
    sink: Sink


@dataclass(slots=True)
class Form(Generic[Sink]):
    """A form: its fields in order, and its files."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[FormFile[Sink]] = field(default_factory=list)


class FormReader(Generic[Sink]):
    """Reads the form of one request; `open_sink` makes what takes a file's bytes, and is called in a thread.

        form = await FormReader(StagedFile, max_files=100, max_fields=50).read(request)
        for file in form.files:
            print(file.name, file.sink.size)

    Where `read` raises, `form.files` has the sinks that were opened, for the caller to discard.
    """

    def __init__(self, open_sink: Callable[[], Sink], *, max_files: int, max_fields: int) -> None:
        self.form: Form[Sink] = Form()
        self._open_sink = open_sink
        self._max_files, self._max_fields = max_files, max_fields
        self._files = 0
        self._field_bytes = 0
        self._todo: list[Callable[[], object]] = []  # what is to be done in a thread, in this order
        self._todo_bytes = 0
        self._header, self._value, self._disposition = b"", b"", b""
        self._name = ""
        self._data: bytearray | None = None  # of the current part, if it is a field
        self._ended = False

    async def read(self, request: Request) -> Form[Sink]:
        """Read the whole form.

        Raises:
            BadRequest: it is no form, is cut off, or has more files or fields than it may.
            ClientDisconnect
        """
        try:
            kind, parameters = parse_options_header(request.headers.get("content-type"))
        except (ValueError, LookupError, TypeError) as error:
            raise BadRequest("the form's Content-Type cannot be read", hint=_HINT) from error
        boundary = parameters.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise BadRequest("the body is no multipart form, or its boundary is missing", hint=_HINT)
        if parameters.get(b"charset", b"").lower() not in CHARSETS:
            raise BadRequest("the form is in another charset than UTF-8", hint="leave `charset` out, and send UTF-8")
        try:
            parser = MultipartParser(boundary, self._callbacks())
            async for block in request.stream():
                parser.write(block)
                if self._todo_bytes >= FLUSH_BYTES:
                    await self._flush()
            parser.finalize()
        except FormParserError as error:
            raise BadRequest(f"the multipart form cannot be read: {error}", hint=_HINT) from error
        # what a parser raises of bytes that it did not foresee
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BadRequest(f"the form cannot be read: {type(error).__name__}", hint=_HINT) from error
        await self._flush()
        if not self._ended:
            raise BadRequest("the multipart form is cut off: its last boundary is missing", hint=_HINT)
        return self.form

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_end": self._on_end,
        }

    async def _flush(self) -> None:
        todo, self._todo, self._todo_bytes = self._todo, [], 0
        if todo:
            await STORE.run(lambda: [act() for act in todo])

    # ---- what the parser finds ------------------------------------------------------------------------------------

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        if b"name" not in options:
            raise BadRequest("a part of the form has no name", hint=_HINT)
        self._name = _text(options[b"name"], "the name of a field")
        if b"filename" in options:
            self._begin_file(options[b"filename"].decode("utf-8", "backslashreplace"))
            return
        if len(self.form.fields) >= self._max_fields:
            raise BadRequest(f"more than {self._max_fields} fields in one form", hint=_HINT)
        self._data = bytearray()

    def _begin_file(self, name: str) -> None:
        self._data = None
        self._files += 1
        if self._files > self._max_files:
            raise BadRequest(
                f"more than {self._max_files} files in one form",
                hint="send several forms, or each file by PUT; `k2d label` does",
                limit=self._max_files,
            )
        for escaped, character in _ESCAPED:
            name = name.replace(escaped, character)
        if len(name) > MAX_NAME_CHARACTERS:
            raise BadRequest(f"a file name has {len(name)} characters", hint=f"at most {MAX_NAME_CHARACTERS}")
        self._todo.append(partial(self._open, self._name, name or "unnamed"))
        self._todo_bytes += 1024  # a file costs more than its bytes

    def _open(self, field_name: str, name: str) -> None:
        self.form.files.append(FormFile(field_name, name, self._open_sink()))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        block = data[start:end]
        if self._data is None:
            self._todo.append(partial(self._write, block))
            self._todo_bytes += len(block)
            return
        self._field_bytes += len(block)
        if self._field_bytes > MAX_FIELD_BYTES:
            raise BadRequest(
                f"the fields of the form have more than {MAX_FIELD_BYTES} bytes", hint="give files a file name"
            )
        self._data += block

    def _write(self, block: bytes) -> None:
        self.form.files[-1].sink.write(block)

    def _on_part_end(self) -> None:
        if self._data is None:
            self._todo.append(lambda: self.form.files[-1].sink.finish())
        else:
            self.form.fields.append((self._name, _text(bytes(self._data), f"the field {self._name[:100]!r}")))

    def _on_end(self) -> None:
        self._ended = True


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{what} is not UTF-8", hint="forms are UTF-8") from error
