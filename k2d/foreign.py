"""Parses JSON and YAML that strangers wrote: every way in which they can be wrong is one error.

The parsers of the standard library and of PyYAML raise what their inside happens to raise: RecursionError for what is
nested a thousand times, ValueError for a date without a 13th month, KeyError for a `!!bool` that is none.
"""

import json
from typing import Any, Final

import yaml

MOST_NESTED: Final = 64  # chosen: our own documents have less than ten levels
_PARSER_ERRORS: Final = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class Unparsable(ValueError):
    """A text is not the JSON or YAML that it should be; the message says why, in one line."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON document. NaN and infinities, which JSON does not have, are refused.

        parse_json('{"alpha": 0.4}')

    Raises:
        Unparsable: not JSON, not UTF-8, nested too deeply, or with a number of thousands of digits.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise Unparsable("it is nested too deeply") from error
    except ValueError as error:
        raise Unparsable(_first_line(error)) from error


def parse_yaml(text: str) -> Any:
    """The value of a YAML document, of YAML's own types only.

        parse_yaml("alpha: 0.4")

    Raises:
        Unparsable: not YAML, nested too deeply, or a scalar is not what its form or tag says.
    """
    try:
        _check_nesting(text)
        return yaml.safe_load(text)
    except RecursionError as error:
        raise Unparsable("it is nested too deeply") from error
    except _PARSER_ERRORS as error:
        raise Unparsable(_first_line(error)) from error


def _check_nesting(text: str) -> None:
    """Refuse what is nested deeper than MOST_NESTED: PyYAML's time grows faster than the depth."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_NESTED:
            raise Unparsable("it is nested too deeply")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _first_line(error: Exception) -> str:
    lines = " ".join(str(error).split()) or type(error).__name__
    return lines[:300].encode("utf-8", "backslashreplace").decode()
