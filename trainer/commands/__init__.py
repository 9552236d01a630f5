"""The trainer's commands: `train`, `eval`, `convert`, `probe`, `study`. torch is imported when one of them runs."""

from trainer.commands import convert, eval, probe, study, train  # noqa: F401
