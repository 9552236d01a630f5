"""Make examples/audio from a folder of recordings with a manifest.jsonl, so that every sample's origin is on record.

    python examples/make_examples.py FOLDER [examples/audio]

FOLDER holds the speech the project measures with: original texts (CC0), spoken by Kokoro-82M (Apache-2.0). Its rows
name audio, text, language, voice, aug and licence; the long recording has a timeline beside it.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from k2d.audio import blocks
from k2d.schema import SAMPLE_RATE_HZ, Samples

LECTURE = ("pub_long_05_solo", 121.0, 213.704)  # recording, from, to: two windows cannot hold it; applause and silence
# what a batch in the field holds: our name → the source's
CLIPS = {
    "cs-clean-1.flac": "pub_cs_000",
    "cs-clean-2.flac": "pub_cs_002",
    "cs-clean-3.mp3": "pub_cs_020",
    "cs-clean-4.m4a": "pub_cs_009",
    "cs-white-noise.flac": "pub_cs_001_a",
    "cs-babble.mp3": "pub_ct_024_a",
    "cs-loud-noise.mp3": "pub_ct_068_a",
    "cs-music.mp3": "pub_cs_055_a",
    "cs-reverb.flac": "pub_ct_074_a",
    "en-clean.mp3": "pub_join_025",
    "zh-clean.m4a": "pub_zh_022",
    "no-speech.flac": "pub_nonspeech_05_music",
}
BROKEN = ("cut-off.flac", "pub_cs_004", 0.5)  # a copy that stopped half-way
CODECS = {".mp3": ("libmp3lame", 48_000), ".m4a": ("aac", 48_000), ".ogg": ("libopus", 24_000)}  # codec, bits/s
KEPT = ("language", "text", "text_spoken", "engine", "voice", "aug", "licence")


def main(source: Path, target: Path) -> None:
    """Write the samples and their manifest into `target`; the manifest last."""
    lines = (source / "manifest.jsonl").read_text("utf-8").splitlines()
    rows = {Path(row["audio"]).stem: row for row in map(json.loads, lines)}
    target.mkdir(parents=True, exist_ok=True)
    made = [lecture(source, rows, target)]
    for name, stem in CLIPS.items():
        samples = np.concatenate(list(blocks(source / rows[stem]["audio"])))
        encode(target / name, samples)
        made.append(described(name, samples, rows[stem]))
    made.append(broken(source, rows, target))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    (target / "manifest.jsonl").write_text(text, "utf-8")
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{len(made)} files, {sum(row['duration'] for row in made):.1f} s, {size / 1e6:.2f} MB in {target}")


def lecture(source: Path, rows: dict[str, dict[str, Any]], target: Path) -> dict[str, Any]:
    """A long recording's stretch, with the sentences that lie in it."""
    stem, start_s, end_s = LECTURE
    row = rows[stem]
    timeline = json.loads((source / row["timeline"]).read_text("utf-8"))["segments"]
    spoken = [part for part in timeline if part["start"] >= start_s and part["end"] <= end_s]
    samples = np.concatenate(list(blocks(source / row["audio"])))
    samples = samples[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
    encode(target / "lecture.ogg", samples)
    made = described("lecture.ogg", samples, row)
    made["text"] = "".join(part["text"] for part in spoken)
    made["text_spoken"] = "".join(part.get("text_spoken", part["text"]) for part in spoken)
    made["segments"] = [
        {**part, "start": round(part["start"] - start_s, 3), "end": round(part["end"] - start_s, 3)} for part in spoken
    ]
    return made


def broken(source: Path, rows: dict[str, dict[str, Any]], target: Path) -> dict[str, Any]:
    """The first share of a file's bytes."""
    name, stem, share = BROKEN
    whole = io.BytesIO()
    samples = np.concatenate(list(blocks(source / rows[stem]["audio"])))
    soundfile.write(whole, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    data = whole.getvalue()
    (target / name).write_bytes(data[: round(len(data) * share)])
    row = described(name, samples[: round(len(samples) * share)], rows[stem])
    return {**row, "text": "", "text_spoken": "", "broken": "truncated"}


def described(name: str, samples: Samples, row: dict[str, Any]) -> dict[str, Any]:
    """A manifest row: whose voice, what text, which licence, and which measuring recording it was made from."""
    kept = {key: row.get(key, "") for key in KEPT}
    return {"audio": name, "duration": round(len(samples) / SAMPLE_RATE_HZ, 3), **kept, "made_from": row["audio"]}


def encode(path: Path, samples: Samples) -> None:
    """Write 16 kHz mono samples, shape (n,), in the format the suffix names."""
    if path.suffix not in CODECS:
        soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
        return
    codec, bits_per_s = CODECS[path.suffix]
    with av.open(str(path), "w", container_options={"fflags": "bitexact"}) as container:  # no random serial numbers
        stream = container.add_stream(codec, rate=SAMPLE_RATE_HZ, layout="mono")
        stream.bit_rate = bits_per_s
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent / "audio"))
