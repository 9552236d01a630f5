"""Reads multipart forms: whatever is wrong with one is a BadRequest."""

from typing import Final

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request

from k2d.errors import BadRequest

CHARSETS: Final = frozenset((b"", b"utf-8", b"utf8", b"us-ascii", b"ascii"))  # browsers send none
_HINT: Final = "send multipart/form-data as a browser or curl does (RFC 7578)"


async def read_form(request: Request, *, max_files: int, max_fields: int) -> FormData:
    """Read a form with its files; the caller closes it.

    Raises:
        BadRequest: not a form, more files or fields than that, or texts in another charset than UTF-8.
        ClientDisconnect: the client left before it had sent all of it.
    """
    _check_charset(request.headers.get("content-type", ""))
    try:
        return await request.form(max_files=max_files, max_fields=max_fields)
    except HTTPException as error:
        raise BadRequest(str(error.detail), hint=_HINT) from error
    # what parsers raise of bytes that they did not foresee; what the host itself raises while it reads goes on
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadRequest(f"the form cannot be read: {type(error).__name__}", hint=_HINT) from error


def _check_charset(content_type: str) -> None:
    """Refuse forms in other charsets: Python's codecs include some that raise at will, or write half a character."""
    try:
        _, options = parse_options_header(content_type)
    except (ValueError, LookupError, TypeError) as error:
        raise BadRequest("the form's Content-Type cannot be read", hint=_HINT) from error
    if options.get(b"charset", b"").lower() not in CHARSETS:
        raise BadRequest("the form is in another charset than UTF-8", hint="leave `charset` out, and send UTF-8")
