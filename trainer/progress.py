"""How long work tells its caller how far it is."""

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]  # what is done, how many of it are done, of how many


def no_progress(what: str, done: int, total: int) -> None:
    """An `OnProgress` for callers that show nothing."""
