"""The launcher's parts that need no server: the repository it writes, its environment, shared memory, its output."""

import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from k2d.errors import BadRequest, ModelError
from k2d.settings import load
from services.tritonserver import environment, healer, repository, shm
from services.tritonserver.admin import Admin
from services.tritonserver.healer import Healer
from services.tritonserver.output import Output
from services.tritonserver.runtime import STUB, Runtime, TritonFailed
from services.tritonserver.server import TritonServer

# ---- the model repository -----------------------------------------------------------------------------------------


def test_the_repository_says_what_the_settings_say(tmp_path: Path) -> None:
    settings = load(batch_size=24, linger_s=0.05, max_waiting=99, triton_instances=3, server_timeout_s=20)
    repository.write(settings, ["teacher"], into=tmp_path, path=["/some/where"])
    text = (tmp_path / "teacher" / "config.pbtxt").read_text("utf-8")
    for line in (
        'name: "teacher"',
        "max_batch_size: 24",
        "preferred_batch_size: [ 24 ]",
        "max_queue_delay_microseconds: 10000",
        "default_timeout_microseconds: 20000000",
        "max_queue_size: 99",
        "{ count: 3 kind: KIND_AUTO }",
        "allow_ragged_batch: true",
    ):
        assert line in text
    code = (tmp_path / "teacher" / "1" / "model.py").read_text("utf-8")
    assert "*['/some/where'], " in code
    assert "triton_model import TritonPythonModel" in code


def test_a_config_is_triton_s_own_format(tmp_path: Path) -> None:
    """Parsed by the message that Triton's client carries: an unknown field or enum is an error."""
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    parsed = text_format.Parse(repository.config(load(device="cpu"), "validator"), ModelConfig())
    assert parsed.name == "validator"
    assert (
        parsed.instance_group[0].kind
        == ModelConfig.DESCRIPTOR.fields_by_name["instance_group"]
        .message_type.enum_types_by_name["Kind"]
        .values_by_name["KIND_CPU"]
        .number
    )
    assert parsed.dynamic_batching.default_queue_policy.allow_timeout_override
    assert not parsed.response_cache.enable
    assert [i.name for i in parsed.input] == ["HEAD", "SAMPLES"]


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("student", {}),
        ("validator", {"validator": "perturbed"}),
        ("validator", {"validator": "perturbed+second-decode"}),
        ("validator", {"validator": "openai/whisper-tiny+openai/whisper-small"}),
        ("teacher", {"teacher": "http://somewhere:8000"}),
        ("teacher", {"teacher": "grpc://somewhere:8001/teacher"}),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, model: str, overrides: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        repository.write(load(**overrides), [model], into=tmp_path)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


# ---- before a server is started -----------------------------------------------------------------------------------


def test_another_engine_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="ctranslate2 only"):
        TritonServer(load(engine="transformers", cache=tmp_path)).start()
    assert not list(tmp_path.iterdir())


def test_no_model_is_refused() -> None:
    with pytest.raises(BadRequest):
        TritonServer(load(), models=[])


def test_settings_reach_the_stub_as_they_were(tmp_path: Path) -> None:
    settings = load(threads=3, cache=tmp_path, api_token="secret", allowed_sources="file:///a/,s3://b/")
    assert settings.variables() == {
        "K2D_THREADS": "3",
        "K2D_CACHE": str(tmp_path),
        "K2D_API_TOKEN": "secret",
        "K2D_ALLOWED_SOURCES": "file:///a/,s3://b/",
    }


def test_a_missing_library_is_named_instead_of_hanging(tmp_path: Path) -> None:
    """A program built against a library that is not there, as a stub is without its libpython."""
    stub = tmp_path / "python" / "triton_python_backend_stub"
    stub.parent.mkdir()
    program = Path("/bin/ls").read_bytes()
    assert b"libc.so.6\0" in program
    stub.write_bytes(program.replace(b"libc.so.6\0", b"libq.so.6\0"))
    with pytest.raises(TritonFailed, match=r"libq\.so\.6"):
        Runtime(Path("/bin/ls"), tmp_path, "2.51.0").check()
    stub.unlink()
    with pytest.raises(TritonFailed, match="missing"):
        Runtime(Path("/bin/ls"), tmp_path, "2.51.0").check()


# ---- its environment ----------------------------------------------------------------------------------------------


def test_two_starts_install_once_and_a_half_made_environment_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def install(folder: Path, requirements: Path, *, python: str) -> None:
        assert not folder.exists()  # what was half made is gone
        made.append(folder)
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(sys.executable)
        time.sleep(0.3)
        (folder / environment.COMPLETE).write_text("")

    monkeypatch.setattr(environment, "_install", install)
    starts = [threading.Thread(target=environment.ensure, args=(tmp_path,)) for _ in range(3)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert len(made) == 1
    (made[0] / environment.COMPLETE).unlink()
    environment.ensure(tmp_path)
    assert len(made) == 2
    (made[0] / "bin" / "python").unlink()  # the interpreter it was made from is gone
    (made[0] / "bin" / "python").symlink_to(tmp_path / "gone")
    environment.ensure(tmp_path)
    assert len(made) == 3


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cache cannot be written"):
        environment.ensure(tmp_path / "file")


# ---- shared memory and output -------------------------------------------------------------------------------------


def test_only_regions_nobody_uses_are_swept() -> None:
    name = f"k2d_test_{os.getpid()}_"
    stale, mapped, opened, foreign = (
        shm.SHM / f"{kind}" for kind in (f"{name}stale", f"{name}mapped", f"{name}open", f"other{name}")
    )
    paths = (stale, mapped, opened, foreign)
    try:
        for path in paths:
            path.write_bytes(b"\0" * 4096)
        with mapped.open("r+b") as file:
            mapping = mmap.mmap(file.fileno(), 0)
        holder = subprocess.Popen(["/bin/sleep", "60"], stdin=opened.open("rb"))
        try:
            assert shm.sweep(name) == [stale.name]
            assert [path.exists() for path in paths] == [False, True, True, True]
        finally:
            holder.kill()
            holder.wait()
        mapping.close()
        assert shm.sweep(name) == [mapped.name, opened.name]
        assert shm.sweep(name) == []
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def named_as_stub(command: str) -> "subprocess.Popen[bytes]":
    """A process that looks like a stub."""
    return subprocess.Popen(["/bin/bash", "-c", f"exec -a {STUB} {command}"])


def test_stubs_of_an_unloaded_model_end_their_work_and_idle_ones_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healer, "LOOK_S", 0.2)
    monkeypatch.setattr(healer, "IDLE_S", 0.8)
    work = "import sys, time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass"
    idle, busy = named_as_stub("sleep 60"), named_as_stub(f"{sys.executable} -c '{work}'")
    try:
        Healer(Admin("http://127.0.0.1:9"), [], repository=tmp_path, load_s=1)._wait_gone({idle.pid, busy.pid})
        assert idle.wait(1) == -signal.SIGKILL
        assert busy.wait(1) == 0
    finally:
        for process in (idle, busy):
            process.kill()
            process.wait()


def test_output_never_blocks_the_child_and_keeps_the_end(tmp_path: Path) -> None:
    code = "for n in range(50000): print(n, 'x' * 20)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        output = Output(tmp_path / "log")
        output.follow(child)
        assert child.wait(60) == 0
        output.close()
    assert output.tail().splitlines()[-1].startswith("49999 ")
    assert len((tmp_path / "log").read_text().splitlines()) == 50_000
