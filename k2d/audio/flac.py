"""FLAC encoding and decoding in memory: the form in which chunks' samples are stored."""

import io

import numpy as np
import soundfile

from k2d.errors import StoreError
from k2d.schema import SAMPLE_RATE_HZ, Samples


def encode_flac(samples: Samples) -> bytes:
    """Encode 16 kHz mono int16 samples, shape (n,), losslessly; the same samples give the same bytes.

    Raises:
        ValueError: the samples are not a one-dimensional int16 array with at least one sample.
    """
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise ValueError(f"expected int16 samples of shape (n,), got {samples.dtype} of shape {samples.shape}")
    if not len(samples):
        raise ValueError("expected at least one sample: libsndfile writes no FLAC file without any")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> Samples:
    """Decode what `encode_flac` wrote; shape (n,).

    Raises:
        StoreError: the bytes are damaged, or are not 16 kHz mono 16-bit audio.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            shape = (file.samplerate, file.channels, file.subtype)
            samples: Samples = file.read(dtype="int16")
    except soundfile.LibsndfileError as error:
        raise StoreError(
            "stored audio cannot be decoded", hint="the shard is damaged: delete and relabel it"
        ) from error
    if shape != (SAMPLE_RATE_HZ, 1, "PCM_16"):
        raise StoreError(f"stored audio is not 16 kHz mono 16-bit but {shape}", hint="the shard was not written by k2d")
    return samples
