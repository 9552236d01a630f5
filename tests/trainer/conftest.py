"""Shared by the trainer's tests: a tiny teacher, its vocabulary, a frozen dataset. No test changes them."""

from pathlib import Path

import pytest
import structlog
from frozen_sets import frozen
from weights import base

from k2d.datasets.read import FrozenDataset
from k2d.whisper.vocabulary import Vocabulary


@pytest.fixture(autouse=True)
def default_logs() -> None:
    """Commands that ran before in this process have set a level, below which nothing can be captured."""
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Whisper with random weights, two encoder layers and four decoder layers."""
    pytest.importorskip("torch", reason="needs the torch extra")
    from tiny import tiny_teacher

    return tiny_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """Whisper's, as the tiny teacher has it."""
    return Vocabulary(base().path / "tokenizer.json")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> FrozenDataset:
    """40 rows of noise in 10 row groups."""
    return frozen(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy transcripts of a few tokens: random weights would write on to the limit."""
    monkeypatch.setattr("trainer.model.greedy.MAX_TOKENS", 16)
