"""The audit log: who changed what, as JSON lines that are only ever appended."""

import getpass
import json
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from k2d.errors import StoreError
from k2d.store.base import LakePart
from k2d.store.guard import guard


class AuditLog(LakePart):
    """Entries: audit-log/<day>.jsonl in a local store; in an object store, which cannot append, one object an entry.

    lake.audit_log.record("freeze", by="local:ada", target="lectures-v1")
    """

    def record(self, action: str, *, by: str, target: str, **details: Any) -> None:
        """Append an entry: `action` on `target` by somebody, now. `details` are JSON values; no secrets.

        Raises:
            StoreError
        """
        now = datetime.now(UTC)
        entry = {"at": now.isoformat(timespec="milliseconds"), "action": action, "by": by, "target": target, **details}
        line = json.dumps(entry, ensure_ascii=True, default=str).encode() + b"\n"
        folder = f"audit-log/{now:%Y-%m-%d}"
        if self.files.local:
            self._append(f"{folder}.jsonl", line)
        else:
            self.files.write(f"{folder}/{now:%H%M%S.%f}-{uuid.uuid4().hex}.jsonl", line)

    def entries(self) -> Iterator[dict[str, Any]]:
        """All entries, oldest first. A line that a full disk cut off is left out."""
        for path in self.files.listing("audit-log"):
            for line in self.files.read(path).splitlines():
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(entry, dict):
                    yield entry

    def _append(self, path: str, line: bytes) -> None:
        """One write at the file's end: entries of several processes do not mix."""
        with guard(path, writing=True):
            full = self.files.full(path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            descriptor = os.open(full, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                if os.write(descriptor, line) != len(line):
                    raise StoreError(f"the store is full: {path} has a line that is cut off", hint="free space")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def local_user() -> str:
    """Who runs this process, as the audit log names them: `local:` and the login name."""
    try:
        return f"local:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user may have no name
        return f"local:{os.getuid()}"
