"""`k2d keys`: makes, lists and revokes keys of the labeling API and the inference servers."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import SERVING, Json, app, settings
from k2d.store import Lake
from k2d.store.access import AccessKey, AccessRole
from k2d.store.audit_log import local_user

keys = typer.Typer(
    name="keys",
    help="Make, list and revoke keys of the servers. Works on the store (K2D_STORE) itself, not through the API.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(keys, rich_help_panel=SERVING)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for the list and the audit log.")],
    role: Annotated[
        AccessRole,
        typer.Option(
            metavar="ROLE",
            help="`viewer` reads; `reviewer` also reviews; `operator` also posts, cancels, freezes and uses the "
            "inference servers; `admin` also deletes.",
        ),
    ] = AccessRole.VIEWER,
    as_json: Json = False,
) -> None:
    """Make a key and print it. It is shown this once: the store has its hash only.

    From the first key on, servers on this store answer nobody without one. They know a new key after 5 seconds.
    """
    lake = Lake(settings().store)
    key, secret = lake.access.create(name, role, created_by=local_user())
    lake.audit_log.record("create key", by=local_user(), target=f"{key.id} {key.name}", role=key.role)
    if as_json:
        show.dump({"key": secret} | _document(lake, key))
        return
    print(secret)
    show.err.print(
        f"key {key.id} of {escape(name)!r}, role {role}. It is not shown again: K2D_API_TOKEN=… on the client"
    )


@keys.command("list")
def list_keys(as_json: Json = False) -> None:
    """List the keys with their roles and last use, the revoked ones too."""
    lake = Lake(settings().store)
    documents = [_document(lake, key) for key in lake.access.all()]
    if as_json:
        show.dump(documents)
        return
    table = Table(box=SIMPLE_HEAD)
    for column in ("id", "name", "role", "made", "by", "last used", "revoked"):
        table.add_column(column, overflow="fold")  # an id must not lose its end
    for document in documents:
        names = ("id", "name", "role", "created_at", "created_by", "last_used_at", "revoked_at")
        row = [escape(str(document[name] or "–")) for name in names]
        if document["error"]:
            row[1], row[2] = "[yellow]damaged[/]", "–"
        table.add_row(*row)
    show.out.print(table)
    for error in (document["error"] for document in documents if document["error"]):
        show.err.print(f"[yellow]damaged[/]: {escape(str(error))}", soft_wrap=True)


@keys.command()
def revoke(key: Annotated[str, typer.Argument(metavar="ID-OR-NAME", help="The key's id or name.")]) -> None:
    """Revoke a key: servers refuse it after at most 5 seconds. Revoking the last key opens nothing."""
    lake = Lake(settings().store)
    revoked = lake.access.revoke(key)
    lake.audit_log.record("revoke key", by=local_user(), target=f"{revoked.id} {revoked.name}")
    show.out.print(f"revoked: {revoked.id} {escape(revoked.name)}")


def _document(lake: Lake, key: AccessKey) -> dict[str, object]:
    """A key for people and programs: without its hash."""
    document: dict[str, object] = {name: value for name, value in asdict(key).items() if name != "sha256"}
    return document | {"last_used_at": lake.access.last_used(key.id)}
