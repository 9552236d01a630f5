"""Decodes media files of any format to 16 kHz mono int16, as a stream in bounded memory.

`examine` decodes a file once from end to end and returns its length and identity, or raises why it cannot be used.
`blocks` and `SampleReader` return its samples. `encode_flac` and `decode_flac` are the form samples are stored in.
"""

from k2d.audio.decode import blocks
from k2d.audio.examine import examine, probe_channels, probe_duration_s
from k2d.audio.flac import decode_flac, encode_flac
from k2d.audio.media import AudioFile
from k2d.audio.reader import SampleReader

__all__ = [
    "AudioFile",
    "SampleReader",
    "blocks",
    "decode_flac",
    "encode_flac",
    "examine",
    "probe_channels",
    "probe_duration_s",
]
