"""The trainer's commands: `train`, `eval`, `convert`, `probe`. torch is imported when one of them runs."""

from trainer.commands import convert, eval, probe, train  # noqa: F401
