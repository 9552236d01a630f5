"""Logging: one line an event, to standard error; JSON where a machine reads it."""

import logging
import sys

import structlog

from k2d.settings import Settings


def setup(settings: Settings) -> None:
    """Configure structlog for this process. Standard output stays free for results."""
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
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # whatever stderr is when something is said
    )
