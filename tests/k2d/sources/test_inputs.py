"""What a user may name: files, folders, patterns, URIs, prefixes of a bucket, manifests."""

from pathlib import Path

import pytest
from buckets import SECRETS, client, new_bucket

from k2d.errors import BadRequest, K2DError, NotFound
from k2d.sources import collect


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.wav", "b.mp3", "deep/c.flac", "notes.txt"):
        path = tmp_path / "talks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(folder: Path, *given: str) -> list[str]:
    return [str(path.relative_to(folder)) for path in collect([str(folder / name) for name in given]).files]


def test_files_folders_and_patterns(folder: Path) -> None:
    assert names(folder, "talks") == ["talks/a.wav", "talks/b.mp3", "talks/deep/c.flac"]
    assert names(folder, "talks/notes.txt") == ["talks/notes.txt"]
    assert names(folder, "talks/*.wav", "talks/a.wav") == ["talks/a.wav"]
    assert names(folder, "talks/**/*.flac") == ["talks/deep/c.flac"]
    (folder / "odd [1].wav").write_bytes(b"x")
    assert names(folder, "odd [1].wav") == ["odd [1].wav"]  # a file by this name is no pattern
    for missing in ("talks/*.ogg", "nothing", "talks/none.wav"):
        with pytest.raises(NotFound):
            names(folder, missing)


def named(*given: object, below: tuple[str, ...] = ()) -> list[str]:
    return list(collect(map(str, given), below=below).files.values())


def test_a_name_does_not_depend_on_the_current_folder_and_has_no_path_of_this_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["talks/a.wav", "talks/b.mp3", "talks/deep/c.flac"]
    assert named(folder / "talks") == wanted
    for current, given in (
        (folder, "talks"),
        (folder, "./talks/"),
        (folder / "talks", "."),
        (folder / "talks/deep", ".."),
    ):
        monkeypatch.chdir(folder / current)
        assert named(given) == wanted
    monkeypatch.chdir(folder)
    assert named("talks/a.wav") == ["a.wav"]
    assert named(folder / "talks" / "*" / "*.flac") == ["deep/c.flac"]
    assert named(folder / "talks" / "deep" / "c.flac", below=("talks",)) == ["talks/deep/c.flac"]


def test_files_of_one_name_are_told_apart(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "a.wav").write_bytes(b"y")
    assert named(folder / "talks/a.wav", folder / "other/a.wav", folder / "talks/b.mp3") == [
        "other/a.wav", "talks/a.wav", "b.mp3"
    ]  # fmt: skip


def test_uris_are_left_to_whoever_labels(folder: Path) -> None:
    given = ["s3://bucket/a.flac", "https://host.example/b.mp3?x=1", "file:///srv/c.wav"]
    assert collect([*given, given[0], str(folder / "talks/a.wav")]).uris == given
    assert len(collect([*given, str(folder / "talks/a.wav")]).files) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.jsonl", '{"audio": "talks/a.wav", "text": "x"}\n\n{"uri": "s3://bucket/b.flac"}\n"talks/b.mp3"\n'),
        ("list.tsv", "id\taudio\n1\ttalks/a.wav\n2\ts3://bucket/b.flac\n3\ttalks/b.mp3\n"),
        ("list.tsv", "# heard on Monday\ntalks/a.wav\tx\ns3://bucket/b.flac\ntalks/b.mp3\n"),
    ],
)
def test_manifests_name_files_beside_them_and_uris(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, "utf-8")
    inputs = collect([folder / name])
    assert [str(path.relative_to(folder)) for path in inputs.files] == ["talks/a.wav", "talks/b.mp3"]
    assert inputs.uris == ["s3://bucket/b.flac"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.jsonl", '{"audio": "talks/a.wav"}\n{"text": "no audio"}\n'),
        ("x.jsonl", "{broken\n"),
        ("x.jsonl", ""),
        ("x.jsonl", '["talks/a.wav"]\n'),
        ("x.jsonl", '{"audio": 5}\n'),
        ("x.tsv", "audio\n"),
        ("x.tsv", "id\taudio\n1\n"),
        ("x.tsv", "talks/gone.wav\n"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, "utf-8")
    with pytest.raises((BadRequest, NotFound)) as caught:
        collect([folder / name])
    assert isinstance(caught.value, K2DError)
    assert caught.value.hint


# ---- buckets ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in (SECRETS | {"AWS_ENDPOINT_URL": s3}).items():
        monkeypatch.setenv(name, value)
    bucket = new_bucket(s3)
    for key in ("2026/a.flac", "2026/deep/b.mp3", "2026/notes.txt", "2027/c.flac"):
        client(s3).put_object(Bucket=bucket, Key=key, Body=b"x")
    return f"s3://{bucket}"


@pytest.mark.integration
def test_a_prefix_of_a_bucket_is_its_audio(bucket: str) -> None:
    wanted = [f"{bucket}/2026/a.flac", f"{bucket}/2026/deep/b.mp3"]
    assert collect([f"{bucket}/2026/"]).uris == wanted
    assert collect([f"{bucket}/2026/*"]).uris == wanted
    assert collect([f"{bucket}/"]).uris == [*wanted, f"{bucket}/2027/c.flac"]
    assert collect([f"{bucket}/202*"]).uris == [*wanted, f"{bucket}/2027/c.flac"]
    with pytest.raises(NotFound):
        collect([f"{bucket}/2028/"])
