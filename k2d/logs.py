"""Logging to standard error, one line per event; as JSON where `log_json` is set."""

import logging
import sys

import structlog

from k2d.settings import Settings


def setup(settings: Settings) -> None:
    """Configure structlog for this process. Logs go to standard error, results to standard output."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if settings.log_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        # standard error is looked up when a logger is first used: pytest replaces it
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
