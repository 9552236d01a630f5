"""Names and texts that a page must show and never run."""

from typing import Final

HOSTILE: Final = "<img src=x onerror=alert(1)>\"'`{{7*7}}"
# of a teacher and of a validator; the last has a mark that turns the direction of writing
HOSTILE_TEXTS: Final = (
    ("<script>alert(1)</script> 今天 meeting", "今天 <b>meetings</b>"),
    ("\u202e好 ${1}", ""),
)
