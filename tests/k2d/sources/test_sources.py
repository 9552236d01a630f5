"""What a batch may refer to, how it is described, and how it is opened."""

import hashlib
import io
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

import pytest
import s3fs
from buckets import SECRETS, new_bucket
from media_files import write

from k2d import sources
from k2d.audio import examine
from k2d.errors import AudioError, NotFound, SourceRefused
from k2d.filehash import FileHashes
from k2d.keys import digest
from k2d.schema import QuarantineReason, Source
from k2d.sources import check_allowed, describe, expand, from_path, open_source, uris


def no_lake(uri: str) -> BinaryIO:
    raise AssertionError(f"the lake was asked for {uri}")


def refused(uri: str, *allowed: str) -> bool:
    try:
        check_allowed(uri, allowed)
    except SourceRefused:
        return True
    return False


# ---- the allow-list -----------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """srv/audio may be read, srv/audio-private and etc may not."""
    for folder in ("srv/audio/day one", "srv/audio-private", "etc"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.wav").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize("slash", ["", "/"])
def test_files_inside_and_outside(tree: Path, slash: str) -> None:
    root = f"file://{tree}"
    allowed = f"{root}/srv/audio{slash}"
    for inside in ("day%20one/a.wav", "day one/a.wav", "not-there-yet.wav", "100%.wav", "a#1?.wav"):
        assert not refused(f"{root}/srv/audio/{inside}", allowed)
    for outside in (
        "/srv/audio-private/a.wav",
        "/srv/audio.wav",
        "/srv/audio/../audio-private/a.wav",
        "/srv/audio/%2e%2e/audio-private/a.wav",
        "/srv/audio/%2E./audio-private/a.wav",
        "/srv/audio/day one/..%2f..%2f..%2fetc/a.wav",
        "/srv/audio/x%00.wav",
        "/etc/a.wav",
        "/srv",
        "",
    ):
        assert refused(root + outside, allowed)


def test_a_prefix_without_a_slash_covers_itself(tree: Path) -> None:
    uri = (tree / "etc/a.wav").as_uri()
    assert not refused(uri, uri)
    assert refused(uri + "x", uri)
    assert refused((tree / "etc").as_uri(), (tree / "etc").as_uri() + "/")


def test_links_count_by_where_they_lead(tree: Path) -> None:
    root = f"file://{tree}"
    (tree / "srv/audio/out.wav").symlink_to(tree / "etc/a.wav")
    (tree / "srv/audio/outside").symlink_to(tree / "etc")
    (tree / "srv/audio/in.wav").symlink_to(tree / "srv/audio/day one/a.wav")
    (tree / "mounted").symlink_to(tree / "srv/audio")
    allowed = f"{root}/srv/audio/"
    assert refused(f"{root}/srv/audio/out.wav", allowed)
    assert refused(f"{root}/srv/audio/outside/a.wav", allowed)
    assert not refused(f"{root}/srv/audio/in.wav", allowed)
    assert not refused(f"{root}/srv/audio/in.wav", f"{root}/mounted/")


def test_nothing_is_allowed_by_default_and_schemes_are_few(tree: Path) -> None:
    uri = (tree / "srv/audio/day one/a.wav").as_uri()
    assert refused(uri)
    everything = ("file:///", "s3://bucket/", "https://")
    for strange in (
        "http://example.com/a.wav",
        "ftp://example.com/a.wav",
        "concat:///a.wav|/b.wav",
        "data:audio/wav;base64,AAAA",
        "/srv/audio/a.wav",
        "a.wav",
        "",
        "file://server/share/a.wav",
        "file:/srv/audio/a.wav",
        "simplecache::file:///etc/passwd",
        "s3://bucket/x\n.wav",
    ):
        assert refused(strange, *everything)
    assert not refused(uri, *everything)
    assert not refused("FILE" + uri[4:], *everything)


def test_uploads_are_always_allowed_and_the_rest_of_the_lake_never() -> None:
    assert not refused("lake://uploads/" + "ab" * 32)
    for path in ("batches/b1.json", "uploads/../labels/x", "uploads/%2e%2e/labels/x", "labels/uploads/x", "uploads"):
        assert refused(f"lake://{path}")


def test_buckets_and_keys() -> None:
    assert not refused("s3://corpus/2024/a b.wav".replace(" ", "%20"), "s3://corpus/2024/")
    assert not refused("s3://corpus/2024/a.wav", "s3://corpus")
    for outside in (
        "s3://corpus-private/2024/a.wav",
        "s3://corpus/2024-private/a.wav",
        "s3://corpus/2024/../2023/a.wav",
        "s3://corpus/2024/%2e%2e/2023/a.wav",
        "s3://corpus/2024/%252e%252e/2023/a.wav",
        "s3://corpus/2024%2f..%2fx/a.wav",
        "s3://corpus@evil/2024/a.wav",
        "s3:///2024/a.wav",
        "s3://corpus/2024\\..\\a.wav",
    ):
        assert refused(outside, "s3://corpus/2024")


def test_https_hosts_ports_and_paths() -> None:
    allowed = "https://media.example.com/lectures/"
    assert not refused("https://media.example.com/lectures/a.wav", allowed)
    assert not refused("https://MEDIA.example.com:443/lectures/a.wav?sig=../x#t=5", allowed)
    assert not refused("https://media.example.com:8443/a.wav", "https://media.example.com:8443")
    for outside in (
        "https://media.example.com/lectures-private/a.wav",
        "https://media.example.com/lectures/../a.wav",
        "https://media.example.com/lectures/..;/a.wav",
        "https://media.example.com/lectures/%2e%2e/a.wav",
        "https://media.example.com/lectures%2f..%2fa.wav",
        "https://media.example.com/lectures/..%5ca.wav",
        "https://media.example.com:8443/lectures/a.wav",
        "https://media.example.com@evil.com/lectures/a.wav",
        "https://user:pw@media.example.com/lectures/a.wav",
        "https://evil.com/lectures/a.wav",
        "https://media.example.com.evil.com/lectures/a.wav",
        "https://media.example.com\\@evil.com/lectures/a.wav",
        "https://media.example.com#@evil.com/lectures/a.wav",
        "https://ｍedia.example.com/lectures/a.wav",
        "https:///lectures/a.wav",
    ):
        assert refused(outside, allowed)


PRIVATE_HOSTS = [
    "localhost",
    "db.localhost",
    "metadata.google.internal",
    "printer",
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0.0.0.0",
    "10.0.0.8",
    "172.16.3.4",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "[::1]",
    "[::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[2002:7f00:1::]",
    "224.0.0.1",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::808:808]",
    "[::ffff:0:127.0.0.1]",
    "[::127.0.0.1]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "[ff02::1]",
    "168.63.129.16",
    "[64:ff9b::a83f:8110]",
]


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
def test_private_hosts_must_be_named(host: str) -> None:
    assert refused(f"https://{host}/a.wav", "https://")
    assert not refused(f"https://{host}/a.wav", f"https://{host}/")


@pytest.mark.parametrize(
    "host", ["example.com", "8.8.8.8", "[2606:4700::6810:84e5]", "xn--fiq228c.com", "[64:ff9b::808:808]"]
)
def test_the_bare_scheme_means_port_443_of_any_public_host(host: str) -> None:
    assert not refused(f"https://{host}/a.wav", "https://")
    assert not refused(f"https://{host}:443/a.wav", "https://")
    for port in (22, 80, 6379, 8443):
        assert refused(f"https://{host}:{port}/a.wav", "https://")
        assert not refused(f"https://{host}:{port}/a.wav", f"https://{host}:{port}/")


def test_a_link_that_changes_between_check_and_opening_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allow-list is judged on the file that was opened, not on its path."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.wav").write_bytes(folder.name.encode())
    link = inside / "folder"
    link.symlink_to(inside)
    uri, allowed = (link / "a.wav").as_uri(), [inside.as_uri() + "/"]

    def check_then_swap(*arguments: object) -> None:
        check_allowed(*arguments)
        link.unlink()
        link.symlink_to(outside)

    with open_source(Source("x", uri, "key"), no_lake, allowed=allowed) as file:
        assert file.read() == b"inside"
    check_allowed(uri, allowed)
    link.unlink()
    link.symlink_to(outside)
    with pytest.raises(SourceRefused):  # as the API does: checked before, described after
        describe(uri, allowed=allowed)
    link.unlink()
    link.symlink_to(inside)
    monkeypatch.setattr(uris, "check_allowed", check_then_swap)
    with pytest.raises(AudioError) as error:
        open_source(Source("x", uri, "key"), no_lake, allowed=allowed)
    assert error.value.reason == QuarantineReason.REFUSED


# ---- describing and opening ---------------------------------------------------------------------------------------


def test_a_file_is_described_by_what_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, "pcm_s16le")
    found = from_path(path)
    assert found == describe(path.as_uri())
    assert (found.name, found.uri, found.size_bytes) == (str(path), path.as_uri(), path.stat().st_size)
    assert from_path(path).key == found.key
    os.utime(path, ns=(1, 1))
    assert from_path(path).key != found.key
    assert describe(path.as_uri(), "given").name == "given"


@pytest.mark.parametrize(
    "raw", ["with\nnewline.wav", "🎧 聲音.wav", "100%41.wav", "a?b#c.wav", b"\xa4\xa4\xff.wav", "-rf", " .wav"]
)
def test_any_file_name_survives(tmp_path: Path, raw: str | bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + os.fsencode(raw)))
    write(tmp_path / "plain.wav", "pcm_s16le")
    (tmp_path / "plain.wav").rename(path)
    source = from_path(path)
    json.dumps(asdict(source), ensure_ascii=False).encode()
    digest(source)
    assert isinstance(raw, bytes) or source.name.endswith(raw)
    check_allowed(source.uri, [tmp_path.as_uri()])
    with open_source(Source(**json.loads(json.dumps(asdict(source)))), no_lake) as file:
        assert examine(file, min_s=0.1, max_s=10, silence_peak=0.001).duration_s == 3.0
    assert expand([path]) == [path]


def test_what_is_missing_or_no_file(tmp_path: Path) -> None:
    for look in (from_path, lambda path: describe(Path(path).as_uri())):
        with pytest.raises(NotFound):
            look(tmp_path / "missing.wav")
        with pytest.raises(SourceRefused, match="regular"):
            look(tmp_path)
        with pytest.raises(SourceRefused, match="regular"):
            look(Path("/dev/zero"))
    gone = Source("gone", (tmp_path / "gone.wav").as_uri(), "key")
    with pytest.raises(AudioError) as caught:
        open_source(gone, no_lake)
    assert caught.value.reason == QuarantineReason.UNREADABLE


@pytest.mark.timeout(20)
def test_a_pipe_does_not_hold_the_worker(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    source = from_path(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(AudioError) as caught:
        open_source(source, no_lake)
    assert caught.value.reason == QuarantineReason.REFUSED


def test_the_list_is_asked_again_when_the_worker_opens(tree: Path) -> None:
    path = tree / "srv/audio/b.wav"
    path.write_bytes(b"x")
    source, allowed = from_path(path), [f"file://{tree}/srv/audio/"]
    open_source(source, no_lake, allowed=allowed).close()
    path.unlink()
    path.symlink_to(tree / "etc/a.wav")
    with pytest.raises(AudioError) as caught:
        open_source(source, no_lake, allowed=allowed)
    assert caught.value.reason == QuarantineReason.REFUSED
    open_source(source, no_lake).close()  # trusted: an embedded run


def test_uploads_are_opened_by_the_lake() -> None:
    asked: list[str] = []

    def lake_open(uri: str) -> BinaryIO:
        asked.append(uri)
        return io.BytesIO(b"bytes")

    with open_source(Source("a", "lake://uploads/00", "key"), lake_open, allowed=()) as file:
        assert file.read() == b"bytes"
    assert asked == ["lake://uploads/00"]


def test_expanding_folders(tmp_path: Path) -> None:
    names = ["b.WAV", "a.mp3", "deep/er/c.opus", "notes.txt", ".hidden.wav", ".cache/d.wav", "deep/video.mkv", "odd"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    expected = [tmp_path / name for name in ("a.mp3", "b.WAV", "deep/er/c.opus", "deep/video.mkv")]
    assert expand([tmp_path]) == expected
    assert expand([tmp_path / "notes.txt", tmp_path, tmp_path / "a.mp3", tmp_path / ".hidden.wav"]) == sorted(
        [*expected, tmp_path / "notes.txt", tmp_path / ".hidden.wav"]
    )
    assert expand([tmp_path / "deep"], extensions=None) == expected[2:]
    assert tmp_path / "odd" in expand([str(tmp_path)], extensions=None)
    assert expand([]) == []
    with pytest.raises(NotFound):
        expand([tmp_path / "missing"])


def test_s3(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (SECRETS | {"AWS_ENDPOINT_URL": s3}).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    corpus = new_bucket(s3)
    write(tmp_path / "a.flac", "flac")
    system.put(str(tmp_path / "a.flac"), f"{corpus}/day/a.flac")
    source = describe(f"s3://{corpus}/day/a.flac")
    assert source.size_bytes == (tmp_path / "a.flac").stat().st_size
    assert source.key == describe(f"s3://{corpus}/day/a.flac").key
    with open_source(source, no_lake) as file:
        assert examine(file, min_s=0.1, max_s=10, silence_peak=0.001).duration_s == 3.0
    write(tmp_path / "a.flac", "flac", seconds=2.0)
    system.put(str(tmp_path / "a.flac"), f"{corpus}/day/a.flac")
    assert describe(f"s3://{corpus}/day/a.flac").key != source.key
    for missing in (f"s3://{corpus}/day/b.flac", "s3://nowhere/a.flac", f"s3://{corpus}/day"):
        with pytest.raises(NotFound):
            describe(missing)
    with pytest.raises(AudioError) as caught:
        open_source(Source("b", f"s3://{corpus}/day/b.flac", "key"), no_lake)
    assert caught.value.reason == QuarantineReason.UNREADABLE
    s3fs.S3FileSystem.clear_instance_cache()


# ---- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("content", [False, True])
def test_a_file_of_the_same_size_and_time_is_another_file(tmp_path: Path, renamed: bool, content: bool) -> None:
    hashes = FileHashes(tmp_path / "cache") if content else None
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    before, status = sources.from_path(path, hashes=hashes), path.stat()
    target = tmp_path / "b.wav" if renamed else path
    time.sleep(0.05)  # the file system's clock moves on
    target.write_bytes(b"two")
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(target, path)
    assert sources.from_path(path, hashes=hashes).key != before.key
    with path.open("rb") as file:
        assert sources.current_key(before, file, FileHashes(None)) != before.key


def test_equal_content_has_one_key_wherever_it_lies(tmp_path: Path) -> None:
    hashes = FileHashes(None)
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"one")
    a, b = (sources.from_path(tmp_path / name, hashes=hashes) for name in ("a.wav", "b.wav"))
    assert a.key == b.key
    assert a.sha256 == hashlib.sha256(b"one").hexdigest()
    os.utime(tmp_path / "a.wav", (0, 0))
    assert sources.from_path(tmp_path / "a.wav", hashes=hashes) == a


def test_an_address_without_change_mark_is_known_as_such() -> None:
    uri = "https://a.example/talk.flac"
    unmarked = Source("talk", uri, digest("source", uri, 10, ""), 10)
    assert not sources.is_marked(unmarked)
    assert not sources.is_marked(replace(unmarked, key=sources.channel_key(unmarked.key, 2), channel=2))
    assert sources.is_marked(Source("talk", uri, digest("source", uri, 10, '"v1"'), 10))
    assert sources.is_marked(Source("talk", "lake://uploads/x", sources.content_key("0" * 64), 10))
