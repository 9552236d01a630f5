"""Tar files as streams: what the standard library reads back."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.tarstream import END, member_of, tar_of

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=200).filter(
    lambda name: name.strip("./ ") == name
)


@given(files=st.dictionaries(NAMES, st.binary(max_size=2000), max_size=5))
def test_what_is_written_is_read_back(files: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(tar_of(files.items()))), encoding="utf-8") as tar:
        read = {entry.name: tar.extractfile(entry).read() for entry in tar}
    assert read == files


def test_a_file_that_ends_early_ends_the_stream() -> None:
    stream = member_of("a", io.BytesIO(b"123"), 4)
    with pytest.raises(EOFError, match="a ends 1 bytes early"):
        b"".join([*stream, END])
