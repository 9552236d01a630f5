"""Whisper base in memory, loaded once for all tests of the kernel, which may not close it; retries without waits."""

from collections.abc import Iterator

import pytest
import stamina
from weights import open_base

from k2d.whisper.engine import Engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """CTranslate2 in its default precision: int8 on a CPU."""
    engine = open_base()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def exact() -> Iterator[Engine]:
    """CTranslate2 in float32."""
    engine = open_base(compute_type="float32")
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def reference() -> Iterator[Engine]:
    """The transformers engine, float32."""
    pytest.importorskip("torch")
    engine = open_base("transformers")
    yield engine
    engine.close()


@pytest.fixture
def without_waits() -> Iterator[None]:
    """What is tried again is tried again as often, at once."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield
