"""Planning: about an hour of audio a group, cut the same way every time."""

import io
import wave

import pytest
from factories import tone

from k2d.documents import BatchOptions
from k2d.labeling.request import make_batch
from k2d.schema import Source
from k2d.settings import Settings
from k2d.store import Lake
from services.filter.jobs import _groups


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path))


def stored(lake, seconds):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(tone(seconds, 200 + seconds).tobytes())
    file.seek(0)
    uri, sha256, size = lake.uploads.put(file)
    return Source(f"{seconds:05.1f}.wav", uri, sha256, size)


def test_groups_hold_about_group_s_seconds_and_every_recording_once(lake):
    settings = Settings(group_s=10.0, _env_file=None)
    batch = make_batch([stored(lake, seconds) for seconds in (1, 4, 6, 3, 5, 30, 2)], BatchOptions(), settings)
    groups = _groups(batch, lake, settings)
    assert sorted(position for group in groups for position in group) == list(range(7))
    lengths = [[float(batch.sources[position].name[:5]) for position in group] for group in groups]
    assert lengths == [[1, 2, 3, 4], [5], [6], [30]]
    assert _groups(batch, lake, settings) == groups


def test_what_has_no_length_counts_by_its_size(lake):
    settings = Settings(group_s=10.0, _env_file=None)
    uri, sha256, size = lake.uploads.put(io.BytesIO(b"\1" * 100_000))  # about 6 s at 128 kbit/s
    sources = [Source(f"{n}.bin", uri, f"{sha256}{n}", size) for n in range(4)]
    batch = make_batch(sources, BatchOptions(), settings)
    assert [len(group) for group in _groups(batch, lake, settings)] == [1, 1, 1, 1]
