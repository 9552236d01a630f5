"""Journals: what models answered so far for a shard that is not finished, so that a killed worker's successor goes on.

A journal helps and decides nothing: a part that is lost or damaged costs the minute of work that it holds.
"""

import gzip
import re
import time
import uuid
import zlib
from collections.abc import Mapping
from typing import Any, Final

import structlog
from pydantic import BaseModel, ConfigDict

from k2d.errors import DamagedFile, NotFound
from k2d.store.base import LakePart, key_path
from k2d.store.guard import damaged

FOLDER: Final = "journals"
SUFFIX: Final = ".json.gz"
_NAME: Final = re.compile(r"([0-9]{13})-[0-9a-f]{8}" + re.escape(SUFFIX))  # time in ms

log = structlog.get_logger()


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    recording_id: str
    answers: dict[str, Any]


class Journals(LakePart):
    """Journals: journals/ab/<key of the shard>/<time>-<id>.json.gz, one part for each minute of work.

    lake.journals.append(label_key, {"4f1d": {"text": "今天"}}, recording_id="rec_0f3c9a1be2d47c5512345678")
    lake.journals.read(label_key)  # {"4f1d": {"text": "今天"}}
    """

    def append(self, key: str, answers: Mapping[str, Any], *, recording_id: str) -> None:
        """Add answers, JSON values by the digests of their questions, to the journal of the shard with this key.

        Raises:
            StoreError
        """
        name = f"{int(time.time() * 1000):013d}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        part = _Part(recording_id=recording_id, answers=dict(answers))
        self.files.write(f"{key_path(FOLDER, key)}/{name}", gzip.compress(part.model_dump_json().encode(), 6))

    def read(self, key: str) -> dict[str, Any] | None:
        """All answers in the journal of a shard, by digest; None if it has no journal. Damaged parts are left out.

        Raises:
            StoreError: the store does not answer.
        """
        answers: dict[str, Any] = {}
        parts = self._parts(key_path(FOLDER, key))
        for path in parts:
            try:
                answers |= self.read_part(path).answers
            except (DamagedFile, NotFound) as error:
                log.warning("a part of a journal is left out", path=path, error=error.message)
        return answers if parts else None

    def read_part(self, path: str) -> _Part:
        """Read one part.

        Raises:
            NotFound, StoreError
        """
        data = self.files.read(path)
        try:
            return _Part.model_validate_json(gzip.decompress(data))
        except (EOFError, OSError, ValueError, zlib.error) as error:
            raise damaged(path, error) from error

    def remove(self, key: str) -> None:
        """Remove the journal of a shard, if it has one."""
        self.files.remove_folder(key_path(FOLDER, key))

    def parts_of(self, recording_id: str) -> list[str]:
        """The parts that hold something of a recording, and those that cannot be read and so may."""
        return [path for path in self._parts(FOLDER) if self._may_be_of(path, recording_id)]

    def sweep(self, older_than_s: float) -> int:
        """Remove parts that were written longer ago than this; returns their number."""
        limit, removed = (time.time() - older_than_s) * 1000, 0
        for path in self._parts(FOLDER):
            match = _NAME.fullmatch(path.rpartition("/")[2])
            if match and int(match[1]) < limit:
                self.files.remove(path)
                removed += 1
        return removed

    def _may_be_of(self, path: str, recording_id: str) -> bool:
        try:
            return self.read_part(path).recording_id == recording_id
        except NotFound:
            return False
        except DamagedFile:
            return True

    def _parts(self, folder: str) -> list[str]:
        try:
            return [path for path in self.files.listing(folder) if path.endswith(SUFFIX)]
        except NotFound:
            return []
