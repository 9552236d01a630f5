"""Forms are read as they arrive: any file to its sink in order, whatever the blocks; damage is a bad request."""

import asyncio
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from k2d.errors import BadRequest
from services.web.forms import MAX_FIELD_BYTES, Form, FormReader


class Kept:
    def __init__(self) -> None:
        self.data, self.finished = b"", False

    def write(self, block: bytes) -> None:
        assert not self.finished
        self.data += block

    def finish(self) -> None:
        self.finished = True


class Counted:
    size = 0

    def write(self, block: bytes) -> None:
        self.size += len(block)

    def finish(self) -> None:
        pass


def part(head: str, body: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + body + b"\r\n"


def request(blocks: Iterator[bytes], kind: str = "multipart/form-data; boundary=b") -> Request:
    async def receive() -> dict[str, Any]:
        block = next(blocks, None)
        return {"type": "http.request", "body": block or b"", "more_body": block is not None}

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}, receive)


def read(body: bytes, *, block: int = 7, files: int = 10, fields: int = 10) -> Form[Kept]:
    reader = FormReader(Kept, max_files=files, max_fields=fields)
    cut = (body[at : at + block] for at in range(0, len(body), block))
    return asyncio.run(reader.read(request(cut)))


@given(
    contents=st.lists(st.binary(max_size=200), max_size=4),
    value=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    block=st.integers(1, 64),
)
def test_files_and_fields_come_out_as_they_were_sent(contents: Sequence[bytes], value: str, block: int) -> None:
    parts = [part(f'name="files"; filename="f{number}"', data) for number, data in enumerate(contents)]
    form = read(b"".join([part('name="x"', value.encode()), *parts, b"--b--\r\n"]), block=block)
    assert form.fields == [("x", value)]
    assert [(file.field, file.name, file.sink.data) for file in form.files] == [
        ("files", f"f{number}", data) for number, data in enumerate(contents)
    ]
    assert all(file.sink.finished for file in form.files)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"--b\r\nbroken",
        part('name="files"; filename="f"', b"x"),  # cut off: no last boundary
        part('filename="f"', b"x") + b"--b--\r\n",
        part('name="x"', b"\xff") + b"--b--\r\n",
        part('name="x"', b"1" * (MAX_FIELD_BYTES + 1)) + b"--b--\r\n",
        part('name="f"; filename="' + "n" * 4097 + '"', b"x") + b"--b--\r\n",
        b"".join(part(f'name="f"; filename="{n}"', b"") for n in range(11)) + b"--b--\r\n",
        b"".join(part(f'name="{n}"', b"") for n in range(11)) + b"--b--\r\n",
    ],
)
def test_what_is_no_form_or_has_too_much_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read(body, block=4096)


@pytest.mark.parametrize("kind", ["multipart/form-data", "text/plain; boundary=b", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_a_bad_request(kind: str) -> None:
    with pytest.raises(BadRequest):
        asyncio.run(FormReader(Kept, max_files=1, max_fields=1).read(request(iter([b"--b--\r\n"]), kind)))


def test_a_name_is_as_the_user_saw_it() -> None:
    names = {"a%22b": 'a"b', "講座": "講座", "../x": "../x", "": "unnamed"}
    for sent, seen in names.items():
        [file] = read(part(f'name="f"; filename="{sent}"', b"") + b"--b--\r\n", block=64).files
        assert file.name == seen


def test_memory_does_not_grow_with_the_number_of_files() -> None:
    files, block = 48, b"\0" * 65536

    def body() -> Iterator[bytes]:
        for number in range(files):
            yield f'--b\r\nContent-Disposition: form-data; name="files"; filename="{number}"\r\n\r\n'.encode()
            for _ in range(16):
                yield block
            yield b"\r\n"
        yield b"--b--\r\n"

    reader = FormReader(Counted, max_files=files, max_fields=1)
    tracemalloc.start()
    try:
        form = asyncio.run(reader.read(request(body())))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [file.sink.size for file in form.files] == [1 << 20] * files
    assert peak < 8 << 20
