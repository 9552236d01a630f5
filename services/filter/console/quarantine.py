"""Why recordings are quarantined, in the reader's language. Every text here has a translation; a test looks each up.

Reasons are a closed set. Details are sentences of whatever found the fault, stored in English; the most frequent ones
are known here by their form, the others are shown as they are.
"""

import re
import string
from collections.abc import Mapping
from functools import cache
from typing import Final

from k2d.schema import QuarantineReason
from services.filter.console.words import ENGLISH, Words

REASONS: Final[Mapping[QuarantineReason, str]] = {
    QuarantineReason.UNREADABLE: "It is missing, or cannot be read.",
    QuarantineReason.NOT_AUDIO: "Nothing in it can be decoded as audio.",
    QuarantineReason.TRUNCATED: "Less is there than the file declares.",
    QuarantineReason.DAMAGED: "Part of it was overwritten or broken on the way.",
    QuarantineReason.TOO_SHORT: "It is shorter than a recording may be here.",
    QuarantineReason.TOO_LONG: "It is longer than a recording may be here.",
    QuarantineReason.SILENT: "There is no sound in it.",
    QuarantineReason.NO_CHANNEL: "It does not have the channel that was asked for.",
    QuarantineReason.CHANGED: "It changed while it was labeled.",
    QuarantineReason.REFUSED: "It is outside of what this server may read.",
    QuarantineReason.OVER_QUOTA: "The batch has more hours than a batch may have here.",
    QuarantineReason.CRASHES_WORKER: "Decoding it crashes, or takes more memory or time than it may.",
    QuarantineReason.FAILED: "An unexpected error came up at each attempt.",
}
# the forms of details, as k2d.audio, k2d.sources and k2d.labeling write them
DETAILS: Final = (
    "Channel {channel} of the recording is silent: its loudest sample is at digital silence.",
    "Channel {channel} of the recording is silent: its loudest sample is at {level} dB.",
    "Nothing in the file can be decoded as audio.",
    "The audio is damaged about {at} s from the start.",
    "The audio is damaged from {at} s to its end.",
    "The content is not audio in a format that can be decoded.",
    "The file cannot be read: No such file or directory.",
    "The file cannot be read: Permission denied.",
    "The file changed while it was read: it had other samples in one pass than in another.",
    "The file has no audio stream.",
    "The file has {count} {count:channel|channels}; channel {channel} was asked for.",
    "The file holds samples that are not finite numbers (NaN or infinity).",
    "The file is cut off before the index that is needed to decode it.",
    "The file is cut off in the middle of a frame, {at} s from its start.",
    "The file is cut off: it is shorter than its own header says.",
    "The file is cut off: {there} s of the declared {declared} s are there.",
    "The file is empty (zero bytes).",
    "The recording cannot be decoded: it needs more than {limit} MB of memory.",
    "The recording cannot be decoded: the decoder made no progress for {limit} s.",
    "The recording holds no sound: its samples stand still.",
    "The recording is longer than {limit} s, the maximum.",
    "The recording is silent: its loudest sample is at digital silence.",
    "The recording is silent: its loudest sample is at {level} dB.",
    "The recording lasts {length} s; the minimum is {limit} s.",
    "There is no decoder for the file's audio stream.",
)


def translated(detail: str, words: Words) -> str | None:
    """A detail in the reader's language; None if it is there in English only.

    translated("The file is empty (zero bytes).", Words("zh-Hant"))  # "檔案是空的（零位元組）。"
    """
    if words.language == ENGLISH:
        return detail
    for form in DETAILS:
        if found := _pattern(form).fullmatch(detail):
            return words(form, **found.groupdict())
    return None


@cache
def _pattern(form: str) -> re.Pattern[str]:
    """What a form of details matches: each value is a number, and each pair of words is one of them."""
    parts = []
    for text, value, words, _ in string.Formatter().parse(form):
        parts.append(re.escape(text))
        if words:
            parts.append(f"(?:{words})")
        elif value:
            parts.append(rf"(?P<{value}>-?[\d.,e+]+)")
    return re.compile("".join(parts))
