"""The errors that k2d raises on purpose. Each class has a stable code, an HTTP status and a hint.

The API turns them into problem documents (RFC 9457), the CLI prints message and hint, the job runner quarantines the
recording. Subclasses set the class attributes; an instance says what happened.
"""

from typing import Any


def install_hint(*extras: str) -> str:
    """The command that installs missing packages. k2d is on no package index: extras are installed from a clone."""
    return f"in a clone of k2d: pip install -e '.[{','.join(extras)}]' (`make demo` installs all that the demo needs)"


class K2DError(Exception):
    """Base class of all errors raised on purpose.

        raise NotFound("no batch 'talks'", hint="`k2d batches` lists them", batch="talks")

    `code` is stable and machine-readable, `status` is the HTTP status, `hint` says what the reader can do.
    Other keyword arguments become members of the problem document (ids, limits, values), so they must be JSON types.
    """

    code: str = "error"
    status: int = 500
    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        if hint is not None:
            self.hint = hint


def described(error: K2DError) -> str:
    """An error's message and its hint in one line."""
    return error.message + (f" ({error.hint})" if error.hint else "")


class BadRequest(K2DError):
    """The request or the command line is malformed, or asks for something impossible."""

    code = "bad_request"
    status = 400


class NotFound(K2DError):
    """No batch, chunk, dataset, model or file has that name."""

    code = "not_found"
    status = 404


class SourceUnreachable(NotFound):
    """The storage of a source did not answer, or not properly. Another attempt may find the source."""

    code = "source_unreachable"
    status = 503


class Conflict(K2DError):
    """The name is already taken, or the current state does not allow the operation."""

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


class ModelRefused(K2DError):
    """The operator does not let clients of the API choose this model."""

    code = "model_refused"
    status = 403


class StoreError(K2DError):
    """The lake cannot be read or written (full, read-only, unreachable, damaged)."""

    code = "store_unavailable"
    status = 503


class DamagedFile(StoreError):
    """One file of the lake exists and cannot be read as what it should be. The rest of the lake is not affected."""

    code = "damaged_file"
    status = 503


class QueueError(K2DError):
    """Redis cannot be reached, so no job can be queued now. Stored results are not affected."""

    code = "queue_unavailable"
    status = 503


class ModelError(K2DError):
    """A model cannot be found, fetched, verified or loaded."""

    code = "model_unavailable"
    status = 503


class ModelNotFetched(ModelError):
    """A model that can be fetched is not on this machine yet."""

    code = "model_not_fetched"


class Overloaded(ModelError):
    """The model's queue is full. Try again later, or use another server."""

    code = "overloaded"


class DeadlineExceeded(ModelError):
    """There was no answer within the caller's timeout."""

    code = "deadline_exceeded"
    status = 504


class ServerUnavailable(ModelError):
    """One call to one inference server failed; a retry, or another server, may succeed."""

    code = "server_unavailable"

    def __init__(self, message: str, *, retry_after_s: float | None = None, busy: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s  # from the server's Retry-After header
        self.busy = busy  # healthy, but its queue is full: the circuit breaker does not count it


class AudioError(K2DError):
    """The recording cannot be labeled and is quarantined with `reason`, one of `k2d.schema.QuarantineReason`."""

    code = "audio_unusable"
    status = 422

    def __init__(self, message: str, *, reason: str, hint: str | None = None, **details: Any) -> None:
        super().__init__(message, hint=hint, **details)
        self.reason = reason
