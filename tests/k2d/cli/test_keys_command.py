"""`k2d keys`: a key is shown once, listed without its secret, and revoked."""

import json

import pytest
from typer.testing import CliRunner

from k2d.cli import commands  # noqa: F401 - registers the commands
from k2d.cli.base import app
from k2d.store import Lake
from k2d.store.access import AccessRole, matching


@pytest.fixture
def lake(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_STORE", str(tmp_path / "lake"))
    return Lake(str(tmp_path / "lake"))


def run(*arguments):
    answer = CliRunner().invoke(app, ["keys", *arguments])
    if answer.exception and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer


def test_a_key_is_made_listed_and_revoked(lake):
    secret = run("create", "ada", "--role", "operator").stdout.strip()
    key = matching(lake.access.all(), secret)
    assert key is not None
    assert (key.name, key.role, key.revoked_at) == ("ada", AccessRole.OPERATOR, None)
    listed = run("list", "--json").stdout
    [document] = json.loads(listed)
    assert document["id"] == key.id
    assert document["last_used_at"] is None
    assert secret not in listed
    assert key.sha256 not in listed
    assert "ada" in run("list").stdout
    run("revoke", "ada")
    assert matching(lake.access.all(), secret) is None
    assert [entry["action"] for entry in lake.audit_log.entries()] == ["create key", "revoke key"]
    assert secret not in json.dumps(list(lake.audit_log.entries()))


def test_names_are_taken_once_at_a_time(lake):
    from k2d.errors import BadRequest, Conflict, NotFound

    run("create", "ada")
    with pytest.raises(Conflict):
        run("create", "ada")
    run("revoke", "ada")
    run("create", "ada")
    for name in ("", "a\nb", "x" * 101, "[red]"):
        with pytest.raises(BadRequest):
            run("create", name)
    with pytest.raises(NotFound):
        run("revoke", "nobody")
