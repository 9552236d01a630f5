"""Freed memory stays in the process: page faults are counted, in a process of its own."""

import os
import subprocess
import sys

import pytest

# large blocks, allocated and freed again and again, as a model's work space is
LOOP = """
import resource
from k2d.whisper.allocator import keep_freed_memory
if {keep}:
    print(keep_freed_memory())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    block = bytearray(32 << 20)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _run(keep: bool, **variables: str) -> list[str]:
    command = [sys.executable, "-c", LOOP.format(keep=keep)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=plain | variables).stdout.split("\n")


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in str(os.confstr("CS_GNU_LIBC_VERSION")), reason="no glibc"
)
def test_freed_memory_is_not_mapped_again() -> None:
    (without, *_), (what, with_, *_) = _run(keep=False), _run(keep=True)
    assert what == "freed memory is kept"
    assert int(with_) < int(without) / 10


def test_an_operators_own_variables_are_left_alone() -> None:
    assert _run(keep=True, MALLOC_ARENA_MAX="4")[0] == "as the MALLOC_ variables say"
