"""How many chunks a second can be scored on one core? Ours, with all evidence, beside the straightforward way.

    OMP_NUM_THREADS=1 python bench/scoring.py [--chunks 2000] [--peer-chunks 60] [--repeats 5]

Chunks are made up: sentences of the public measuring set (or, without it, the speech in zh-hallu) with three in ten of
their tokens changed, packed to about 100 mixed tokens and four or five segments; the hypothesis is the label with one
token in eight changed again. No text is scored twice, so no cache of whole texts helps. Times are CPU seconds of this
process, the best of the repeats; every repeat has its own chunks.

- ours: `k2d.filtering.evidence.weigh_many`: the paper's distances (counts of mixed tokens and phonemes,
  repetition, phrase) and `Evidence` for the chunk and each segment (alignment by sound, errors by language,
  homophones, flips, loops, phrases, echo, forced log-probabilities, signals).
- ours, distances: `k2d.filtering.distance.compare`, chunk by chunk: the paper's distances alone.
- straightforward: what one writes with the usual packages, and less of it: error rates of the chunk in mixed tokens and
  phonemes, the edits of each segment, repetition. OpenCC for each text, Whisper's basic normalisation, pypinyin to
  Zhuyin for each character, English word by word with g2p-en (its dictionary, its tagger and its network), jiwer to
  align, over space-joined tokens.

g2p-en fetches its dictionary and its tagger when it is first imported. Where it is not installed or they cannot be had,
CMUdict as a plain dict stands in for it, with letter-to-sound rules for other words: a much faster peer. The table says
which it was.
"""

import argparse
import json
import random
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jiwer
import opencc
from pypinyin import Style, lazy_pinyin

from k2d.filtering.distance import compare
from k2d.filtering.evidence import ChunkTexts, weigh_many
from k2d.schema import Hypothesis, Segment, join_text
from k2d.text import english
from k2d.text.letters import letter_to_sound
from k2d.text.reading import read
from k2d.text.tokens import is_han, is_latin
from k2d.textfiles import read_lines

HERE = Path(__file__).parent
MANIFEST = HERE.parent.parent / "shared" / "data" / "public" / "manifest.jsonl"
SPEECH = HERE / "data" / "zh_hallu" / "zh_hallu.jsonl"

TOKENS = 100  # a chunk
FRESH = 0.3  # tokens of a sentence that are changed before it becomes a label
ERRORS = 0.125  # tokens of a label that its hypothesis has otherwise
SEGMENT_S = 5.0
PIECE = re.compile(r"[㐀-鿿]|[A-Za-z0-9'-]+|.", re.DOTALL)


# ---- chunks -------------------------------------------------------------------------------------------------------


class Maker:
    """Makes chunks nobody has seen."""

    def __init__(self, sentences: Sequence[str], seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.sentences = sentences
        tokens = {token for sentence in sentences for token in read(sentence).tokens}
        self.han, self.words = sorted(filter(is_han, tokens)), sorted(filter(is_latin, tokens))

    def chunk(self) -> ChunkTexts:
        texts: list[str] = []
        length = 0
        while length < TOKENS - 8:
            sentence = self.changed(self.random.choice(self.sentences), FRESH)
            found = len(read(sentence).tokens)
            if length + found > TOKENS + 10:
                continue
            texts.append(sentence)
            length += found
        segments = tuple(
            Segment(place * SEGMENT_S, (place + 1) * SEGMENT_S, f" {text}", (1,) * 20, -0.3, 0.1, 1.3, 0.0, "zh-en")
            for place, text in enumerate(texts)
        )
        heard = self.changed(" ".join(texts), ERRORS)
        return ChunkTexts(segments, (Hypothesis("model:base", "as is", heard, -0.3, (-0.4,) * len(texts)),))

    def changed(self, text: str, share: float) -> str:
        """Three in five of the changed tokens are another one, one is left out, one has another after it."""
        return "".join(self.turn(piece) if self.random.random() < share else piece for piece in PIECE.findall(text))

    def turn(self, piece: str) -> str:
        if not piece.strip():
            return str(piece)
        other = self.random.choice(self.han) if is_han(piece) else f" {self.random.choice(self.words)} "
        return self.random.choices((other, "", piece + other), (3, 1, 1))[0]


def sentences() -> tuple[str, list[str]]:
    """Where sentences come from, and the sentences."""
    if MANIFEST.exists():
        rows = [json.loads(line) for line in read_lines(MANIFEST)]
        return "the public measuring set", sorted({row["text"] for row in rows if row["kind"] == "clip"})
    rows = [json.loads(line) for line in read_lines(SPEECH)]
    return "zh-hallu's speech", sorted({row["text"] for row in rows if not row["label"] and len(row["text"]) < 80})


# ---- the straightforward way --------------------------------------------------------------------------------------

TOKEN = re.compile(r"[㐀-鿿]|[a-z0-9'-]+")
TONES = "ˊˇˋ˙"
PHONES = re.compile(r"[A-Z]+")


class Straightforward:
    """MER and PER by the usual packages, one text after the other."""

    def __init__(self, say: Callable[[str], list[str]]) -> None:
        self.say = say
        self.converter = opencc.OpenCC("t2s")

    def score(self, chunk: ChunkTexts) -> dict[str, Any]:
        label = self.tokens(join_text(segment.text for segment in chunk.segments))
        owners = [place for place, one in enumerate(chunk.segments) for _ in self.tokens(one.text)]
        heard = self.tokens(chunk.hypotheses[0].text)
        mixed = jiwer.process_words(" ".join(heard), " ".join(label))
        sound = jiwer.process_words(" ".join(self.phonemes(heard)), " ".join(self.phonemes(label)))
        edits = Counter(
            owners[min(part.hyp_start_idx, len(owners) - 1)]
            for part in mixed.alignments[0]
            if part.type != "equal"
            for _ in range(max(part.hyp_end_idx - part.hyp_start_idx, part.ref_end_idx - part.ref_start_idx))
        )
        loops = [max(Counter(self.grams(tokens)).values(), default=0) for tokens in (label, heard)]
        return {"mer": mixed.wer, "per": sound.wer, "edits": edits, "loops": loops}

    def tokens(self, text: str) -> list[str]:
        text = re.sub(r"[<\[][^>\]]*[>\]]|\(([^)]+?)\)", "", text.lower())
        text = "".join(
            " " if unicodedata.category(sign)[0] in "MSP" and sign not in "'-" else sign
            for sign in unicodedata.normalize("NFKC", text)
        )
        return TOKEN.findall(self.converter.convert(text))

    def phonemes(self, tokens: Sequence[str]) -> list[str]:
        phonemes: list[str] = []
        for token in tokens:
            if is_han(token):
                [zhuyin] = lazy_pinyin(token, style=Style.BOPOMOFO)
                phonemes += [sign for sign in zhuyin if sign not in TONES]
            else:
                phonemes += self.say(token)
        return phonemes

    def grams(self, tokens: Sequence[str]) -> list[str]:
        text = " ".join(tokens)
        return [text[start : start + 6] for start in range(len(text) - 5)]


def english_sayer() -> tuple[str, Callable[[str], list[str]]]:
    """g2p-en where it works, else a plain dictionary; and its name."""
    try:
        from g2p_en import G2p  # type: ignore[import-not-found]

        g2p = G2p()
        g2p("hello")
    except (ImportError, LookupError, OSError):
        words = {word: english.lookup(word) or () for word in english._dictionary()}
        return "CMUdict as a dict", lambda word: list(words.get(word) or letter_to_sound(re.sub("[^a-z]", "", word)))
    return "g2p-en", lambda word: [PHONES.match(phone)[0] for phone in g2p(word) if PHONES.match(phone)]  # type: ignore[index]


# ---- measuring ----------------------------------------------------------------------------------------------------


def chunks_a_second(score: Callable[[list[ChunkTexts]], object], maker: Maker, *, chunks: int, repeats: int) -> float:
    """The best of the repeats, after one that only warms up."""
    best = 0.0
    for _ in range(repeats + 1):
        fresh = [maker.chunk() for _ in range(chunks)]
        begun = time.process_time()
        score(fresh)
        rate = chunks / (time.process_time() - begun)
        best = max(best, rate) if _ else 0.0
    return best


def distances(chunks: list[ChunkTexts]) -> None:
    for chunk in chunks:
        compare(join_text(segment.text for segment in chunk.segments), [chunk.hypotheses[0].text])


@cache
def pace() -> float:
    """Million turns of an empty loop a second: how fast this core is, or is left by its neighbours."""
    begun, turns = time.process_time(), 3_000_000
    for _ in range(turns):
        pass
    return turns / 1e6 / (time.process_time() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=2000)
    parser.add_argument("--peer-chunks", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    source, found = sentences()
    maker = Maker(found)
    sample = [maker.chunk() for _ in range(200)]
    tokens = sum(len(read(join_text(s.text for s in one.segments)).tokens) for one in sample) / len(sample)
    segments = sum(len(one.segments) for one in sample) / len(sample)
    name, say = english_sayer()
    peer = Straightforward(say)
    rows = [
        ("ours: distances and evidence", weigh_many, asked.chunks),
        ("ours: distances, chunk by chunk", distances, asked.chunks // 4),
        (f"straightforward (English by {name})", lambda chunks: [peer.score(one) for one in chunks], asked.peer_chunks),
    ]
    rates = [chunks_a_second(score, maker, chunks=count, repeats=asked.repeats) for _, score, count in rows]
    print(f"Sentences of {source}; {tokens:.0f} tokens and {segments:.1f} segments a chunk, one hypothesis; one core,")
    print(f"which turns {pace():.0f} million empty loops a second.\n")
    print("| what | chunks a second | µs a chunk | times slower |\n|---|---|---|---|")
    for (what, _, _), rate in zip(rows, rates, strict=True):
        print(f"| {what} | {rate:,.0f} | {1e6 / rate:,.0f} | {rates[0] / rate:.1f} |")


if __name__ == "__main__":
    main()
