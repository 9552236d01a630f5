"""Training the probe, on a language of tones: each phoneme is a pitch, so what was said is known to the last frame."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from lakes import TEACHER
from reading_oracle import mixed_tokens, phonemes

from k2d.audio import encode_flac
from k2d.documents import BatchOptions
from k2d.errors import NotFound
from k2d.labeling.request import make_batch
from k2d.schema import SAMPLE_RATE_HZ, Chunk, Outcome, Recording, RecordingResult, Samples, Segment, Source, Window
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators.probe.network import load
from k2d.whisper.features import log_mel

torch = pytest.importorskip("torch")

from trainer.errors import NoTrainingData  # noqa: E402
from trainer.probe.crossfit import ProbeRecipe, StoredProbe, cross_fit  # noqa: E402
from trainer.probe.examples import examples, label_shards  # noqa: E402

HAN = "媽爸他你我好大小"
UNIT_S = 0.12


class FilterBank:
    """An encoder that is a filter bank: real audio in, one row each 20 ms out."""

    model = TEACHER

    def encode(self, windows) -> np.ndarray:
        mels = [log_mel(window.samples, mels=80) for window in windows]
        return np.stack([mel.reshape(80, 1500, 2).mean(axis=2).T for mel in mels]).astype(np.float16)

    def close(self) -> None:
        raise AssertionError("whoever opened it closes it")


def spoken(text: str) -> Samples:
    """Each unit as a tone of its own, with a short pause behind."""
    alphabet = sorted({unit for character in HAN for unit in phonemes([character])})
    t = np.arange(round(UNIT_S * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    gate = t < UNIT_S * 0.8
    tones = [gate * np.sin(2 * np.pi * (300 + 230 * alphabet.index(unit)) * t) for unit in phonemes(mixed_tokens(text))]
    return np.round(12_000 * np.concatenate(tones)).astype(np.int16)


def store(folder: Path, labels: list[list[str]], *, audio: list[list[str]] | None = None) -> Lake:
    """A batch of recordings; each label is a chunk of its own, read aloud (or something else, where `audio` says)."""
    lake = Lake(str(folder))
    sources = [Source(f"{n}.wav", f"lake://uploads/{n}", f"key{n}") for n in range(len(labels))]
    batch = make_batch(sources, BatchOptions(name="tones", teacher=TEACHER.reference), Settings(_env_file=None))
    lake.batches.put(batch)
    for position, texts in enumerate(labels):
        recording = Recording(f"rec_{position:024x}", 30.0 * len(texts), 480_000 * len(texts), 0.5, "wav")
        key = f"{position:032x}"
        with lake.labels.writer(key, {"recording": recording, "teacher": TEACHER}) as writer:
            for index, text in enumerate(texts):
                samples = spoken(audio[position][index] if audio else text)
                start = 30.0 * index
                end = round(start + len(samples) / SAMPLE_RATE_HZ, 3)
                segment = Segment(start, end, text, (1, 2, 3), -0.2, 0.0, 1.0, 0.0, "zh")
                writer.write(Chunk(index, (segment,)), encode_flac(samples))
        result = RecordingResult(position, f"{position}.wav", Outcome.LABELED, recording.duration_s, recording.id, key)
        lake.batches.put_result(batch.id, result)
    return lake


def sentences(count: int, *, seed: int = 0) -> list[list[str]]:
    draws = np.random.default_rng(seed)
    return [["".join(draws.choice(list(HAN), 10)) for _ in range(2)] for _ in range(count)]


def fit(lake: Lake, **recipe) -> StoredProbe:
    chosen = ProbeRecipe(**{"folds": 2, "epochs": 20, **recipe})
    return cross_fit(lake, ["tones"], chosen, settings=Settings(_env_file=None), engine=FilterBank())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, StoredProbe]:
    lake = store(tmp_path_factory.mktemp("tones"), sentences(30))
    return lake, fit(lake)


def test_it_transcribes_recordings_that_it_never_saw(trained: tuple[Lake, StoredProbe]) -> None:
    _, made = trained
    assert made.all.distance < 0.2
    assert made.all.chunks == sum(fold.chunks for fold in made.folds) == 60
    assert made.recordings == 30


def test_it_finds_true_labels_likelier_than_wrong_ones(trained: tuple[Lake, StoredProbe]) -> None:
    from k2d.validators.probe.validator import probe_hypothesis

    lake, made = trained
    probe = load(lake.probes.get(made.digest))
    right, wrong = "媽爸他你我好大小我你", "小大好我你他爸媽你我"
    encoded = FilterBank().encode([Window(spoken(right))])[0][: len(spoken(right)) // 320]
    new = "rec_new"
    assert (
        probe_hypothesis(probe, [right], encoded, new, name="p").forced_logprobs
        > probe_hypothesis(probe, [wrong], encoded, new, name="p").forced_logprobs
    )
    first, second = probe_hypothesis(probe, [right[:5], wrong[5:]], encoded, new, name="p").forced_logprobs
    assert first > second + 1, "the wrong half is found out where it is"


def test_the_same_seed_gives_the_same_probe(tmp_path: Path) -> None:
    lake = store(tmp_path, sentences(6))
    digests = [fit(lake, epochs=2, seed=seed).digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]
    assert sorted(set(digests)) == lake.probes.digests()


def test_no_fold_learns_from_the_recordings_that_it_judges(tmp_path: Path) -> None:
    """Every label lies, each in its own way: only a network that had seen them could repeat them."""
    true, lies = sentences(24), sentences(24, seed=9)
    made = fit(store(tmp_path, lies, audio=true), epochs=40)
    assert made.all.distance > 0.5


def test_bad_labels_are_not_learned_from(tmp_path: Path) -> None:
    bad = ["請不吝點贊訂閱轉發打賞支持明鏡與點點欄目", "我們" * 30, "..."]
    lake = store(tmp_path, [[*bad, "媽爸他你我好"]], audio=[["媽爸"] * 3 + ["媽爸他你我好"]])
    skipped: Counter[str] = Counter()
    (shard,) = label_shards(lake, ["tones"], hours=1.0)
    kept = [example for example, _ in examples(lake, shard, folds=2, skipped=skipped)]
    assert [example.phonemes for example in kept] == [tuple(phonemes(mixed_tokens("媽爸他你我好")))]
    assert skipped == {"known phrase": 1, "loops": 1, "empty": 1}
    assert kept[0].weight == pytest.approx(np.exp(-0.2))


def test_a_corpus_is_sampled_by_recording_always_the_same(tmp_path: Path) -> None:
    lake = store(tmp_path, sentences(10))
    some = label_shards(lake, ["tones"], hours=240 / 3600)
    assert len(some) == 4
    assert some == label_shards(lake, ["tones", "tones"], hours=240 / 3600)
    assert set(some) < set(label_shards(lake, ["tones"], hours=20.0))


def test_too_little_to_hold_out_is_refused(tmp_path: Path) -> None:
    lake = store(tmp_path, sentences(1))
    with pytest.raises(NoTrainingData, match="cannot be split"):
        fit(lake)
    with pytest.raises(NotFound):
        label_shards(lake, ["nothing"], hours=1.0)
