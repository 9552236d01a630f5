"""A lake for dataset tests."""

from pathlib import Path

import pytest
from lakes import batch, copy, put_recording

from k2d.schema import Outcome, RecordingResult
from k2d.store import Lake

BATCH = "b_0123456789abcdef"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A finished batch of four recordings: three labeled, one quarantined after 2.5 s.

    Talk 0: chunks 0–1 (adjacent), 2 (after 1 s), 3 rejected, 4 (alone). Talk 1: all rejected. Talk 3: no speech.
    """
    lake = Lake(str(tmp_path_factory.mktemp("finished") / "lake"))
    lake.batches.put(batch(5))
    spans = [(0.5, 2.0), (2.0, 3.5), (4.5, 6.0), (6.0, 8.0), (8.0, 9.0)]
    lake.batches.put_result(BATCH, put_recording(lake, 0, spans, rejected=frozenset({3})))
    lake.batches.put_result(BATCH, put_recording(lake, 1, [(0.0, 1.0)], rejected=frozenset({0})))
    lake.batches.put_result(BATCH, RecordingResult(2, "talk-2.flac", Outcome.QUARANTINED, 2.5, reason="truncated"))
    lake.batches.put_result(BATCH, put_recording(lake, 3, [], tail_s=7.0))
    lake.batches.put_result(BATCH, put_recording(lake, 4, [(0.0, 1.25)]))
    return lake


@pytest.fixture
def lake(finished: Lake, tmp_path: Path) -> Lake:
    return copy(finished, tmp_path / "lake")
