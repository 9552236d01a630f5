"""Who used how much of a worker that does many things at once."""

import time


class SharedClock:
    """Divides wall time among the recordings in flight, so that their shares add up to the time that passed."""

    def __init__(self) -> None:
        self._active = 0
        self._virtual_s = 0.0  # advances at 1 / active: what each recording in flight has been given
        self._seen = time.monotonic()

    def enter(self) -> float:
        """Start a recording; returns the token that `leave` takes."""
        self._advance()
        self._active += 1
        return self._virtual_s

    def leave(self, token: float) -> float:
        """End a recording; returns its share in seconds."""
        self._advance()
        self._active -= 1
        return round(self._virtual_s - token, 3)

    def _advance(self) -> None:
        now = time.monotonic()
        if self._active:
            self._virtual_s += (now - self._seen) / self._active
        self._seen = now
