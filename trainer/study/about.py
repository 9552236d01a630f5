"""What was run: the first line of a report."""

import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import k2d
from k2d.filtering.policy import Policy
from k2d.settings import Settings
from trainer.study.blocks import join_words
from trainer.study.labeling import LabeledMaterial


@dataclass(frozen=True, slots=True)
class About:
    """Everything that is needed to run the study again."""

    command: str
    teacher: str
    teacher_fingerprint: str
    validators: tuple[tuple[str, str], ...]  # as asked for, with fingerprint
    policies: tuple[tuple[str, str], ...]  # name and key
    beam_size: int  # of the teacher
    rescore: bool  # whether second decodes could change labels
    machine: str
    k2d_version: str
    created_at: str  # ISO 8601, UTC

    @property
    def line(self) -> str:
        """All of it as one line of Markdown."""
        validators = join_words([f"{name} ({fingerprint})" for name, fingerprint in self.validators])
        policies = join_words([f"{name} ({key[:8]})" for name, key in self.policies])
        return (
            f"`{self.command}`, teacher {self.teacher} ({self.teacher_fingerprint}) with beam size {self.beam_size},"
            f" {'rescored' if self.rescore else 'not rescored'}, validators {validators}, policies {policies};"
            f" k2d {self.k2d_version}, {self.created_at}, {self.machine}."
        )


def about(labeled: LabeledMaterial, policies: Sequence[Policy], arguments: Sequence[str], settings: Settings) -> About:
    """Describe this run; `arguments` are the command line's, after `k2d`, and `settings` those of the labels."""
    first = labeled.validators[0]
    return About(
        command=shlex.join(["k2d", *arguments]),
        teacher=first.teacher,
        teacher_fingerprint=first.fingerprints[0],
        validators=tuple((each.name, each.fingerprints[1]) for each in labeled.validators),
        policies=tuple((policy.name, policy.key) for policy in policies),
        beam_size=settings.beam_size,
        rescore=settings.rescore,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        k2d_version=k2d.__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
