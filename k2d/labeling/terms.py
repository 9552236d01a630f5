"""Terms of a batch: reads them from a file or a text, and tells which of them a teacher's prompt has no room for."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from k2d.documents import BatchOptions
from k2d.errors import BadRequest, ModelError
from k2d.inference.address import is_address, plain
from k2d.settings import Settings
from k2d.text.terms import parse_terms, terms_of, terms_prompt
from k2d.textfiles import read_text, why_unreadable

SUFFIXES: Final = (".txt", ".csv", ".tsv", ".md", ".text", ".lst", ".list")  # of files with terms


def read_terms(file_or_text: str) -> str:
    """The text of a list of terms, from a file if there is one of this name.

        read_terms("terms.txt")
        read_terms("NTU COOL, 余思齊")

    Raises:
        BadRequest: the name of a file that does not exist or cannot be read; the file is empty, is not UTF-8 text, or
            has no term.
    """
    path = Path(file_or_text)
    if not _is(path.is_file):
        is_name = "\n" not in file_or_text and file_or_text.strip().lower().endswith(SUFFIXES)
        if is_name or (file_or_text and _is(path.is_dir)):
            raise BadRequest(f"no file with terms at {file_or_text[:200]!r}", hint="give a text file, or the terms")
        parse_terms(file_or_text)
        return file_or_text
    try:
        text = read_text(path)
    except (OSError, UnicodeError) as error:
        raise BadRequest(
            f"{path} cannot be read: {why_unreadable(error)}",
            hint="give the terms, or a text file in UTF-8 with one term a line",
        ) from error
    try:
        terms = parse_terms(text)
    except BadRequest as error:
        raise BadRequest(f"{path}: {error.message}", hint=error.hint) from error
    if not terms:
        raise BadRequest(f"{path} has no terms", hint="write one term a line, or separate them by commas")
    return text


def _is(kind: Callable[[], bool]) -> bool:
    """`path.is_file()` or `path.is_dir()` of a text that may be no path: too long for a name, or with a NUL."""
    try:
        return kind()
    except (OSError, ValueError):
        return False


def terms_in(options: BatchOptions, settings: Settings) -> tuple[str, ...]:
    """The terms of a request, or of the settings where it has none; an empty text means no terms.

    Raises:
        BadRequest: as `parse_terms`.
    """
    return parse_terms(settings.terms if options.terms is None else options.terms)


def terms_left_out(options: BatchOptions, settings: Settings) -> list[str] | None:
    """The terms for which the prompt of this teacher has no room, in order.

    None if that is not known here: the teacher is on a server, was not fetched yet, or no tokenizer is installed.
    """
    terms = terms_in(options, settings)
    prompt = terms_prompt(terms, language=options.language or settings.language)
    if prompt is None:
        return []
    reference = options.teacher or settings.teacher
    if is_address(reference):
        return None
    try:  # an API that runs no model needs no tokenizer
        from k2d.whisper.prompts import fitting
        from k2d.whisper.resolve import TOKENIZER, resolve
        from k2d.whisper.vocabulary import Vocabulary

        model = resolve(plain(reference), engine=settings.engine, cache=settings.cache, allow_downloads=False)
        vocabulary = Vocabulary(model.path / TOKENIZER)
    except (ImportError, ModelError):
        return None
    return list(terms[len(terms_of(fitting(prompt, vocabulary=vocabulary))) :])
