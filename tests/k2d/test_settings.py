import pytest

from k2d.errors import BadRequest
from k2d.settings import Settings, load


def test_reads_environment_and_overrides_win(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K2D_PORT", "9000")
    monkeypatch.setenv("K2D_ALLOWED_SOURCES", "file:///srv/a/, s3://b/")
    assert load().port == 9000
    assert load().allowed_sources == ("file:///srv/a/", "s3://b/")
    assert load(port=9001).port == 9001


def test_numbers_separated_by_commas_survive_the_way_to_another_process(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K2D_RETRY_S", "0, 1,2")
    settings = load()
    assert settings.retry_s == (0, 1, 2)
    assert settings.variables() == {"K2D_RETRY_S": "0,1,2"}


def test_reads_dotenv(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("# comment\nK2D_TEACHER=openai/whisper-large-v2\nOTHER=1\n")
    assert load().teacher == "openai/whisper-large-v2"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("K2D_STOER", "x", "unknown setting: K2D_STOER"),
        ("K2D_PORT", "99999", "K2D_PORT"),
        ("K2D_ENGINE", "magic", "K2D_ENGINE"),
        ("K2D_SILENCE_PEAK", "2", "K2D_SILENCE_PEAK"),
        ("K2D_RETRY_S", "5,-1", "K2D_RETRY_S"),
        ("K2D_RETRY_S", ",", "K2D_RETRY_S"),
    ],
)
def test_refuses_what_cannot_be(monkeypatch, tmp_path, name, value, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(BadRequest, match=said):
        load()


def test_unknown_setting_in_dotenv_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("K2D_TEECHER=x\n")
    with pytest.raises(BadRequest, match="K2D_TEECHER"):
        load()


def test_secrets_do_not_print():
    settings = Settings(redis_url="redis://:hunter2@localhost/0", api_token="hunter2", _env_file=None)
    assert "hunter2" not in repr(settings)


def test_an_empty_token_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose passes unset variables on as empty ones."""
    monkeypatch.setenv("K2D_API_TOKEN", "")
    assert load().api_token is None
