"""Which samples of a file are labeled: part of keys and ids where asked for, and of the ledger."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from factories import TEACHER, finished_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import speechlike

from k2d import sources
from k2d.corpus import views
from k2d.documents import BatchOptions
from k2d.errors import BadRequest
from k2d.keys import digest
from k2d.labeling.recording import EXAMINE_VERSION, Labeler
from k2d.labeling.request import make_batch, split_channels
from k2d.schema import AudioOptions, Batch, Outcome, RecordingResult, Source
from k2d.settings import Settings, load
from k2d.store import Lake

SETTINGS = Settings(_env_file=None)
A, B = Source("a.wav", "lake://uploads/a", "key-a"), Source("b.wav", "lake://uploads/b", "key-b")


def labeler(batch: Batch, lake: Lake | None = None) -> Labeler:
    class Teacher:
        model = TEACHER

    class NoValidators:
        key = ()

    return Labeler(lake, teacher=Teacher(), validators=NoValidators(), batch=batch, settings=SETTINGS)  # type: ignore[arg-type]


def batch_of(*sources: Source, **options: object) -> Batch:
    return make_batch(sources, BatchOptions(**options), SETTINGS)


def test_the_defaults_have_the_ids_and_keys_that_they_had() -> None:
    batch = batch_of(A)
    identity = digest("batch", [(A.key, A.name)], batch.teacher, batch.validator, batch.options)
    assert batch.id == f"b_{identity[:16]}"
    assert batch.audio == AudioOptions("mix", False)
    assert batch_of(A, channels="mix", keep_partial=False).id == batch.id
    it = labeler(batch)
    assert it.examine_key(A) == digest("examine", EXAMINE_VERSION, A.key, it.limits)


def test_other_choices_are_other_batches_and_examinations() -> None:
    choices = [{}, {"channels": "1"}, {"channels": "2"}, {"channels": "each"}, {"keep_partial": True}]
    batches = [batch_of(A, **choice) for choice in choices]
    assert len({batch.id for batch in batches}) == len(batches)
    keys = [labeler(batch).examine_key(A) for batch in batches]
    assert len({*keys[:3], keys[4]}) == 4
    # labels are keyed by the samples: the same samples under another choice are not labeled twice
    assert "audio" not in batches[0].options.__dataclass_fields__


def test_each_channel_is_a_source_of_its_own() -> None:
    options = BatchOptions(channels="each")
    parts = split_channels([A, B], options, SETTINGS, channels_of=lambda source: 2 if source is A else 1)
    assert [part.name for part in parts] == ["a.wav#1", "a.wav#2", "b.wav"]
    assert [part.channel for part in parts] == [1, 2, None]
    assert len({part.key for part in parts}) == 3
    assert parts[2] == B
    batch = make_batch(parts, options, SETTINGS)
    assert len(batch.sources) == 3
    again = split_channels([B, A], options, SETTINGS, channels_of=lambda source: 2 if source is A else 1)
    assert make_batch(again, options, SETTINGS).id == batch.id
    assert split_channels([A], BatchOptions(), SETTINGS, channels_of=lambda _: 1 / 0) == [A]
    assert split_channels([A], options, SETTINGS, channels_of=lambda _: None) == [A]


def test_a_channel_has_the_label_key_of_the_file_that_holds_it_alone(tmp_path: Path) -> None:
    left = speechlike(2.0)
    right = np.rint(np.random.default_rng(3).standard_normal(len(left)) * 5000).astype(np.int16)
    soundfile.write(tmp_path / "both.wav", np.stack([left, right], axis=1), 16_000)
    soundfile.write(tmp_path / "right.wav", right, 16_000)
    both, alone = (sources.from_path(tmp_path / name) for name in ("both.wav", "right.wav"))
    options = BatchOptions(channels="each")
    parts = split_channels([both], options, SETTINGS, channels_of=lambda _: 2)
    lake = Lake(str(tmp_path / "lake"))
    each = labeler(make_batch(parts, options, SETTINGS, trusted=True), lake)
    mix = labeler(make_batch([alone], BatchOptions(), SETTINGS, trusted=True), lake)
    second = each._examine_now(parts[1])[1].recording
    single = mix._examine_now(alone)[1].recording
    assert second is not None
    assert single is not None
    assert second.id == single.id
    assert each.label_key(second) == mix.label_key(single)


@pytest.mark.parametrize("channels", ["0", "left", "-1", "1.5", "100", ""])
def test_what_is_no_choice_of_channels_is_refused(channels: str) -> None:
    with pytest.raises(ValueError, match="channels"):
        BatchOptions(channels=channels)
    with pytest.raises(BadRequest, match="K2D_CHANNELS"):
        load(channels=channels)


def test_settings_are_the_defaults_of_requests() -> None:
    service = Settings(channels="each", keep_partial=True, _env_file=None)
    assert make_batch([A], BatchOptions(), service).audio == AudioOptions("each", True)
    assert make_batch([A], BatchOptions(channels="2", keep_partial=False), service).audio == AudioOptions("2", False)
    assert BatchOptions.model_validate_json('{"channels": 2}').channels == "2"


milliseconds = st.integers(0, 20_000).map(lambda ms: ms / 1000)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(milliseconds, st.booleans()), max_size=4))
def test_no_second_is_lost_from_the_ledger(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, bool]]
) -> None:
    """In is the sum of all outcomes, with recordings kept whole, in part and not at all."""
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    batch = finished_batch(lake, recordings=len(rows))
    expected_ms = 0
    for position, (rest_s, is_partial) in enumerate(rows):
        result = lake.batches.result(batch.id, position)
        assert result is not None
        quarantined_s = rest_s if is_partial else 0.0
        changed = RecordingResult(
            position,
            result.name,
            Outcome.LABELED,
            round(result.duration_s + quarantined_s, 3),
            result.recording_id,
            result.label_key,
            result.facts_key,
            reason="damaged" if is_partial else None,
            quarantined_s=quarantined_s,
        )
        lake.batches.put_result(batch.id, changed)
        expected_ms += round(quarantined_s * 1000)
    ledger = views.ledger(lake, batch)
    ms = {name: round(1000 * value) for name, value in ledger.seconds}
    assert ms.pop("input") == sum(ms.values())
    assert min(ms.values()) >= 0
    assert ms["quarantined"] == expected_ms
    assert views.status(lake, batch).partial == sum(1 for rest_s, is_partial in rows if is_partial and rest_s)
