"""How much of a batch is left, in seconds of audio and of time. Pure."""

from collections import deque
from typing import Final

# Of the work on a recording, the teacher's share; the rest is validation. Chosen: measured shares lie between a third
# and two thirds, by validator.
LABEL_SHARE: Final = 0.5
LEAST_S: Final = 1.0  # what is left while something is unfinished is never 0
SPEED_S: Final = 600.0  # of which the speed is the mean; chosen: batches have long and short recordings
MEASURED_EVERY_S: Final = 1.0


class RunSpeed:
    """Seconds of audio on which models work in a second, over the last SPEED_S of a run.

    speed = RunSpeed()
    speed.measure(100.0, 0.0)
    speed.measure(110.0, 40.0)
    speed.times_real_time  # 4.0

    The clock starts when models begin: loading them, and what was there already, is no work.
    """

    def __init__(self) -> None:
        self._measured: deque[tuple[float, float]] = deque()  # time, seconds worked on until then

    def measure(self, now: float, worked_s: float) -> None:
        """Note how many seconds of audio were worked on until now."""
        if worked_s <= 0:
            self._measured.clear()
        elif len(self._measured) > 1 and now - self._measured[-2][0] < MEASURED_EVERY_S:
            self._measured.pop()  # too near to the one before: this one takes its place
        self._measured.append((now, worked_s))
        while now - self._measured[0][0] > SPEED_S and len(self._measured) > 2:
            self._measured.popleft()

    @property
    def times_real_time(self) -> float | None:
        """The speed; None before anything was worked on for a moment."""
        if not self._measured:
            return None
        (began, before_s), (now, worked_s) = self._measured[0], self._measured[-1]
        elapsed_s = now - began
        return (worked_s - before_s) / elapsed_s if elapsed_s > 0 and worked_s > before_s else None


def work_done_s(labeled_s: float, validated_s: float) -> float:
    """Seconds of audio that are done, where what is labeled and not yet validated counts in part.

    work_done_s(80.0, 40.0) == 60.0
    """
    return LABEL_SHARE * labeled_s + (1 - LABEL_SHARE) * validated_s


def pending_audio_s(*, finished: int, pending: int, finished_s: float, audio_s: float | None) -> float | None:
    """Seconds of audio in the recordings that are not finished; None if nothing is known of their length.

        pending_audio_s(finished=1, pending=2, finished_s=60.0, audio_s=None)  # 120.0

    Args:
        finished, pending: numbers of recordings.
        finished_s: length of the finished ones.
        audio_s: length of all by their headers. Where it is unknown or cannot be right, the pending ones count as long
            as the finished ones.
    """
    if pending == 0:
        return 0.0
    if audio_s is not None and audio_s > finished_s:
        return audio_s - finished_s
    return finished_s / finished * pending if finished and finished_s else None


def time_left_s(
    *, audio_s: float | None, labeled_s: float, validated_s: float, times_real_time: float | None
) -> float | None:
    """Seconds until a batch that is not finished will be; at least LEAST_S, and None if it cannot be estimated.

        time_left_s(audio_s=300.0, labeled_s=140.0, validated_s=60.0, times_real_time=4.0)  # 50.0

    Args:
        audio_s: length of the whole batch.
        labeled_s, validated_s: how much of it is labeled, and validated.
        times_real_time: seconds of audio that are labeled and validated in a second, of all workers.
    """
    if not audio_s or not times_real_time:
        return None
    # recordings may turn out longer than their headers say
    left = audio_s - work_done_s(min(labeled_s, audio_s), min(validated_s, audio_s))
    return max(LEAST_S, round(left / times_real_time, 1))
