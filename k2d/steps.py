"""How long work tells its caller how far it is."""

from collections.abc import Callable

OnSteps = Callable[[int, int], None]  # how many steps are done, of how many


def ignore_steps(done: int, total: int) -> None:
    """An `OnSteps` for callers that show nothing."""
