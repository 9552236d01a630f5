"""Common Voice as it is released: a folder for each language, with `test.tsv`, other splits, and `clips/`.

Columns of release 16.1: client_id, path, sentence, up_votes, down_votes, age, gender, accents, variant, locale,
segment; later releases add sentence_id and sentence_domain. Only path, sentence and locale are used. Source: the data
set's documentation and the cards of its mirrors on the Hugging Face hub.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2d.errors import BadRequest
from k2d.textfiles import ENCODING
from trainer.evaluation.utterances import Utterance, UtteranceReference, make_reference, opener

NEEDED: Final = ("path", "sentence")


@dataclass(frozen=True, slots=True)
class CommonVoice:
    """One split: a .tsv file with `clips/` beside it."""

    path: Path
    kind: str = "Common Voice"
    pseudo_labels: bool = False

    @property
    def name(self) -> str:
        return f"{self.path.parent.name} {self.path.stem}"

    def references(self) -> Iterator[UtteranceReference]:
        return (utterance.reference for utterance in self.utterances())

    def utterances(self) -> Iterator[Utterance]:
        try:
            with self.path.open(encoding=ENCODING, newline="") as file:
                rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
                missing = [name for name in NEEDED if name not in (rows.fieldnames or ())]
                if missing:
                    raise BadRequest(
                        f"{self.path} has no column {', '.join(missing)}",
                        hint="give a split of Common Voice: a .tsv file with clips/ beside it",
                    )
                yield from map(self._utterance, rows)
        except (UnicodeError, csv.Error) as error:
            raise BadRequest(f"{self.path} cannot be read: {error}", hint="fetch it again") from error

    def _utterance(self, row: dict[str, str | None]) -> Utterance:
        clip = row["path"] or ""
        language = (row.get("locale") or "").split("-")[0] or None  # zh-TW → zh
        return Utterance(
            make_reference(name=clip, text=row["sentence"], language=language, recording=None),
            opener(lambda: self.path.parent / "clips" / clip),
        )
