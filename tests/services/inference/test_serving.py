"""The server as a process: what cannot be served ends it, with the reason."""

import shutil
from pathlib import Path

import pytest
from places import EXAMPLES
from servers import TOKEN, Server
from weights import base

from k2d.client.embedded import Embedded
from k2d.documents import BatchOptions
from k2d.errors import ModelError
from k2d.settings import Settings
from services.inference.serving import serve


@pytest.mark.parametrize(
    ("role", "settings", "why"),
    [
        ("teacher", {"K2D_TEACHER": "http://elsewhere:1"}, "is an address: a server needs a model"),
        ("validator", {}, "perturbed needs no server"),
        ("validator", {"K2D_VALIDATOR": "perturbed+second-decode"}, "perturbed needs no server"),
        ("validator", {"K2D_VALIDATOR": "a/b+c/d"}, "a server loads one model"),
        ("teacher", {"K2D_TEECHER": "x"}, "unknown setting: K2D_TEECHER"),
    ],
)
def test_impossible_settings_end_the_server_before_it_starts(
    role: str, settings: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        serve(role)
    assert str(caught.value).startswith(f"k2d {role}: ")
    assert why in str(caught.value)
    assert "hint: " in str(caught.value)


@pytest.mark.integration
def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base().path, folder)
    with (folder / "model.bin").open("r+b") as file:
        file.truncate(1_000_000)
    servers = [Server(tmp_path / f"log-{n}", teacher=teacher) for n, teacher in enumerate((folder, "/nowhere"))]
    for server, why in zip(servers, ("model.bin", "no model at '/nowhere'"), strict=True):
        assert server.process.wait(60) == 1
        log = server.log.read_text()
        assert why in log
        assert "Traceback" not in log


@pytest.mark.integration
def test_a_validator_with_the_weights_of_a_teacher_on_a_server_is_refused(server: Server, tmp_path: Path) -> None:
    settings = Settings(
        store=str(tmp_path),
        teacher=server.url,
        api_token=TOKEN,
        validator="packaged:whisper-base",
        _env_file=None,
    )
    with pytest.raises(ModelError, match="same weights"):
        Embedded(settings).label([str(EXAMPLES / "cs-reverb.flac")], BatchOptions(), wait=True)
