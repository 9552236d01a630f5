"""Channels: which of them go into the mono mix, and why not all."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float32]  # shape (channels, n), full scale ±1

# The channels of a block cancel where their mean has less than this share of the power that channels without anything
# in common would leave in it: 3 dB less. Voices in the middle, at the side or in rooms leave more.
_CANCEL_POWER: Final = 0.5
# A mix that cancels in more than this share of the loud seconds is not used. Chosen: rooms cancel a block now and then.
_CANCEL_SHARE: Final = 0.1
# Channels whose samples correlate less than this, in either direction, hold different sounds. Chosen: two microphones
# for one speaker correlate more, one for each speaker by what the room carries over.
_DIFFERENT: Final = 0.5


@dataclass(slots=True)
class ChannelSurvey:
    """Collects peaks, powers and common power of a file's channels, block by block of about a second."""

    peaks: dict[int, float] = field(default_factory=dict)  # largest |sample|, by channel, counted from 1
    loud: int = 0  # samples in blocks in which something is to be heard
    cancelled: int = 0  # of these, samples in blocks whose mean cancels
    _gram: npt.NDArray[np.float64] | None = None  # sums of products of channels; of the largest number of channels

    def add(self, signal: Signal, silence_peak: float) -> None:
        """Add a block, shape (channels, n)."""
        channels, count = signal.shape
        peaks = np.abs(signal).max(axis=1, initial=0.0)
        for number, peak in enumerate(peaks, 1):
            self.peaks[number] = max(self.peaks.get(number, 0.0), float(peak))
        if channels == 1:
            return
        gram = (signal @ signal.T).astype(np.float64)
        if peaks.max() > silence_peak:
            self.loud += count
            self.cancelled += count * bool(gram.sum() < _CANCEL_POWER * np.trace(gram))
        if self._gram is None or len(self._gram) < channels:
            self._gram = np.zeros((channels, channels))
        if len(self._gram) == channels:
            self._gram += gram

    def selection(self, silence_peak: float) -> tuple[int, ...]:
        """The numbers of the channels to average, from 1; empty: all of them."""
        if self._gram is None:
            return ()
        if self.cancelled > _CANCEL_SHARE * self.loud:
            return (int(np.argmax(np.diag(self._gram))) + 1,)
        active = self._active(silence_peak)
        return active if 0 < len(active) < len(self.peaks) else ()

    def notes(self, silence_peak: float) -> list[str]:
        """What was decided, and what `--channels each` may serve for; one sentence each."""
        if self._gram is None:
            return []
        selection, active = self.selection(silence_peak), self._active(silence_peak)
        if self.cancelled > _CANCEL_SHARE * self.loud:
            return [f"The channels cancel one another (opposite phase): channel {selection[0]} alone is labeled."]
        notes = []
        if selection:
            silent = [str(number) for number in self.peaks if number not in selection]
            notes.append(f"Silent channels are left out of the mix: {', '.join(silent)} of {len(self.peaks)}.")
        if len(active) > 1 and self._most_common(active) < _DIFFERENT:
            notes.append(
                "The channels hold different sounds"
                f" ({', '.join(f'{self._level_db(number):.0f} dB' for number in active[:8])}): if each has a speaker,"
                " `--channels each` labels them one by one."
            )
        return notes

    def _active(self, silence_peak: float) -> tuple[int, ...]:
        return tuple(number for number, peak in self.peaks.items() if peak >= silence_peak and peak > 0)

    def _most_common(self, active: tuple[int, ...]) -> float:
        """The largest absolute correlation between two of these channels."""
        assert self._gram is not None
        rows = [number - 1 for number in active]
        gram = self._gram[np.ix_(rows, rows)]
        norms = np.sqrt(np.maximum(np.diag(gram), 1e-30))
        correlation = np.abs(gram / np.outer(norms, norms))
        return float((correlation - np.eye(len(rows)) * correlation).max())

    def _level_db(self, number: int) -> float:
        """The peak of a channel in dB of full scale."""
        return 20 * float(np.log10(self.peaks[number]))


def selected(channels: int, selection: tuple[int, ...]) -> list[int]:
    """The rows of a signal of so many channels that a selection means: all where it is empty or names none of them."""
    rows = [number - 1 for number in selection if number <= channels]
    return rows or list(range(channels))
