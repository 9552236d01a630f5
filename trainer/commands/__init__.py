"""The trainer's commands: `k2d train`, `k2d eval`, `k2d convert`. torch is imported when one of them runs."""

from trainer.commands import convert, eval, train  # noqa: F401
