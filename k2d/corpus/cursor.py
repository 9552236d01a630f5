"""Cursors of pages: where the page before ended, as a text for a URL."""

import base64
import json
from typing import Final

from k2d.errors import BadRequest
from k2d.foreign import parse_json

MOST: Final = 2**31 - 1  # columns of the index are int32


def encode(place: tuple[int, int]) -> str:
    """A place, as two numbers, as a cursor.

    encode((3, 17))  # "WzMsIDE3XQ=="
    """
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def decode(cursor: str, *, least: int = 0) -> tuple[int, int]:
    """The place of a cursor, two numbers `least` … 2³¹ - 1.

    Raises:
        BadRequest: it is not one.
    """
    try:
        first, second = parse_json(base64.urlsafe_b64decode(cursor.encode()))
        if not all(type(number) is int and least <= number <= MOST for number in (first, second)):
            raise ValueError("not a place")
        return first, second
    except (ValueError, TypeError) as error:
        raise BadRequest(
            "the cursor is not valid",
            hint="use `next` of the previous page, or its link to the next one, unchanged",
            parameter="cursor",
            value=cursor[:100],
        ) from error
