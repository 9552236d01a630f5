"""Segments as subtitles, SubRip (SRT) and WebVTT. Times always carry hours; texts stay on one line. Pure."""

from collections.abc import Iterable, Iterator

from k2d.schema import Segment


def srt(segments: Iterable[Segment]) -> str:
    """SubRip: numbered cues, a comma before the milliseconds. Empty when there is no segment.

    srt([segment])  -> "1\\n00:00:00,000 --> 00:00:01,500\\n你好\\n\\n"
    """
    return "".join(
        f"{number}\n{clock(start, ',')} --> {clock(end, ',')}\n{text.replace('-->', '->')}\n\n"
        for number, (start, end, text) in enumerate(_cues(segments), 1)
    )


def vtt(segments: Iterable[Segment]) -> str:
    """WebVTT: a header, then cues with a point before the milliseconds; &, < and > are written as the format asks."""
    cues = (f"{clock(start, '.')} --> {clock(end, '.')}\n{_escaped(text)}\n\n" for start, end, text in _cues(segments))
    return "WEBVTT\n\n" + "".join(cues)


def clock(ms: int, point: str) -> str:
    """Milliseconds as HH:MM:SS and three digits behind `point`; hours have as many digits as they need."""
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{ms:03d}"


def _cues(segments: Iterable[Segment]) -> Iterator[tuple[int, int, str]]:
    """Start and end in milliseconds, and the text; segments without length or text are left out."""
    for segment in segments:
        start, end = round(segment.start_s * 1000), round(segment.end_s * 1000)
        text = " ".join(segment.text.split())
        if text and end > start:
            yield start, end, text


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
