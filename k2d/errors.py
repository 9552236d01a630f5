"""Every error a person can meet: one base class, a stable code, an HTTP status, a hint.

The API turns them into problem documents (RFC 9457), the CLI into one message with its hint, the job runner
into a quarantined recording. Subclasses set the class attributes; instances say what happened.
"""

from typing import Any, ClassVar


def install_hint(*extras: str) -> str:
    """What to type when packages are missing. k2d is on no package index: extras are installed from a clone of it."""
    return f"in a clone of k2d: pip install -e '.[{','.join(extras)}]' (`make demo` installs all that the demo needs)"


class K2DError(Exception):
    """Base of all errors raised on purpose.

    `code` is stable and machine-readable, `status` the HTTP status it maps to, `hint` what the reader can do.
    Keyword arguments become members of the problem document (ids, limits, values), so they must be JSON types.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        if hint is not None:
            self.hint = hint


class BadRequest(K2DError):
    """The request or the command line asks for something that makes no sense."""

    code = "bad_request"
    status = 400


class NotFound(K2DError):
    """No batch, chunk, dataset, model or file has that name."""

    code = "not_found"
    status = 404


class Conflict(K2DError):
    """The name is taken by something else, or the thing is not in a state that allows the act."""

    code = "conflict"
    status = 409


class TooLarge(K2DError):
    """A body or a file exceeds its limit."""

    code = "too_large"
    status = 413


class SourceRefused(K2DError):
    """A URI is outside the allow-list."""

    code = "source_refused"
    status = 403


class StoreError(K2DError):
    """The lake cannot be read or written (full, read-only, unreachable, damaged)."""

    code = "store_unavailable"
    status = 503


class QueueError(K2DError):
    """Redis cannot be reached, so work cannot be queued now. What is stored is safe."""

    code = "queue_unavailable"
    status = 503


class ModelError(K2DError):
    """A model cannot be found, fetched, verified or loaded."""

    code = "model_unavailable"
    status = 503


class Overloaded(ModelError):
    """The model's queue is full; asking again later, or another server, helps."""

    code = "overloaded"


class DeadlineExceeded(ModelError):
    """The answer did not come within the time the caller gave it."""

    code = "deadline_exceeded"
    status = 504


class TryAgain(ModelError):
    """One attempt at one inference server failed in a way that another attempt, or another server, may not."""

    code = "server_unavailable"

    def __init__(self, message: str, *, retry_after_s: float | None = None, busy: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s  # what the server asked for
        self.busy = busy  # it is well, only full: no reason to avoid it


class AudioError(K2DError):
    """This recording cannot be labeled: it is quarantined with `reason`, one of `k2d.schema.QuarantineReason`."""

    code = "audio_unusable"
    status = 422

    def __init__(self, message: str, *, reason: str, hint: str | None = None, **details: Any) -> None:
        super().__init__(message, hint=hint, **details)
        self.reason = reason
