"""The walk of real recordings through real weights, embedded: the ledger adds up, nothing is done twice."""

import hashlib
from itertools import pairwise
from pathlib import Path

import pytest

from k2d.client import Embedded
from k2d.documents import BatchOptions
from k2d.filtering.evidence import weigh
from k2d.schema import QuarantineReason
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators.second_decode import unresolved

pytestmark = pytest.mark.integration


def shards(store: Path) -> dict[str, str]:
    """Every label, hypotheses and facts shard of a local lake, by path, with its hash."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("labels", "hypotheses", "facts")
        for path in sorted((store / folder).rglob("*.parquet"))
    }


def run(settings: Settings, paths, **options):
    reports = []
    status = Embedded(settings).label(
        [str(path) for path in paths], BatchOptions(**options), wait=True, on_status=reports.append
    )
    return status, reports


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """The sample audio, labeled once."""
    from places import EXAMPLES

    settings = Settings(store=str(tmp_path_factory.mktemp("lake")), _env_file=None)
    status, reports = run(settings, [EXAMPLES], name="sample")
    return settings, status, reports


@pytest.mark.slow
def test_every_second_is_accounted_for(labeled):
    _, status, reports = labeled
    book = status.ledger
    seconds = book.seconds
    assert status.state == "done"
    assert book.recordings.pending == 0
    ms = {name: round(1000 * value) for name, value in seconds}
    no_label = {name: round(1000 * value) for name, value in book.no_label}
    assert sum(no_label.values()) == ms["silence"]
    assert no_label["unknown"] == 0 < min(no_label["pauses"], no_label["sound"])
    assert min(ms.values()) >= 0
    assert ms.pop("input") == sum(ms.values())
    assert seconds.accepted + seconds.salvaged > 60
    assert reports[-1].recordings == reports[-1].total == book.recordings.total


@pytest.mark.slow
def test_the_broken_file_is_quarantined_and_its_neighbours_are_labeled(labeled):
    _, status, _ = labeled
    assert status.ledger.recordings.quarantined >= 1
    assert {row.reason for row in status.quarantined} <= set(QuarantineReason)
    assert status.ledger.recordings.labeled >= 8


@pytest.mark.slow
def test_chunks_are_ordered_disjoint_and_at_most_30_s(labeled):
    settings, _, _ = labeled
    by_recording: dict[str, list] = {}
    for chunk in Embedded(settings).chunks("sample"):
        by_recording.setdefault(chunk.recording, []).append(chunk)
        assert 0 < chunk.end_s - chunk.start_s <= 30.0
        assert chunk.validators == "perturbed:packaged:whisper-base"  # the fallback is named as such
        assert len(chunk.validator_texts) == len(chunk.perturbations) == 2
    for chunks in by_recording.values():
        assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
        for before, after in pairwise(chunks):
            assert before.end_s <= after.start_s
    assert max(len(chunks) for chunks in by_recording.values()) > 1


@pytest.mark.slow
def test_the_label_audio_is_cut_to_its_label(labeled):
    from k2d import audio

    settings, _, _ = labeled
    lake = Lake(settings.store)
    for result in lake.batches.results(lake.batches.get("sample").id):
        for chunk, flac in lake.labels.read(result.label_key, audio=True) if result.label_key else ():
            assert len(audio.decode_flac(flac)) == round(chunk.duration_s * 16_000)


@pytest.mark.slow
def test_the_same_recording_is_never_labeled_twice(labeled, examples):
    settings, status, _ = labeled
    before = shards(Path(settings.store))
    stamps = {path: path.stat().st_mtime_ns for path in Path(settings.store).rglob("*.parquet")}
    again, _ = run(settings, [examples], name="sample")
    assert again.id == status.id
    some = sorted(examples.glob("*.*g"))[:3]
    other, _ = run(settings, some, name="other")
    assert other.id != status.id
    assert other.state == "done"
    assert shards(Path(settings.store)) == before
    kept = {"labels", "hypotheses"}
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if kept & set(path.parts))


@pytest.mark.slow
def test_another_language_is_another_label(labeled, examples, tmp_path):
    settings, _, _ = labeled
    before = shards(Path(settings.store))
    clip = sorted(examples.glob("*.flac"))[:1]
    run(settings, clip, name="in-english", language="en")
    assert set(before) < set(shards(Path(settings.store)))


@pytest.mark.slow
def test_a_second_decode_gets_what_the_first_left_unresolved_and_nothing_is_done_again(labeled, examples):
    settings, _, _ = labeled
    before = shards(Path(settings.store))
    clips = [examples / "cs-clean-1.flac", examples / "cs-loud-noise.mp3"]
    status, _ = run(settings, clips, name="second", validator="perturbed+second-decode")
    assert status.state == "done"
    new = [path.partition("/")[0] for path in shards(Path(settings.store)) if path not in before]
    assert sorted(new) == [
        "facts",
        "facts",
        "hypotheses",
        "hypotheses",
    ]  # no label, and no perturbed audio transcribed again
    lake = Lake(settings.store)
    rows = [
        row
        for result in lake.batches.results(lake.batches.get("second").id)
        for row in lake.facts.read(result.facts_key)
    ]
    for row in rows:
        first, second = row.hypotheses[:2], row.hypotheses[2:]
        assert all(len(one.forced_logprobs) == len(row.segments) and max(one.forced_logprobs) <= 0 for one in first)
        unsure = unresolved(weigh(row.segments, first).evidence)
        assert [one.perturbation.partition(" ")[0] for one in second] == (["language", "fallback"] if unsure else [])
    assert any(len(row.hypotheses) > 2 for row in rows)
