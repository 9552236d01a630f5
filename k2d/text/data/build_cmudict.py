"""Builds cmudict.txt.gz: `python -m k2d.text.data.build_cmudict cmudict.dict k2d/text/data/cmudict.txt.gz`.

The input is CMU's cmudict.dict (https://github.com/cmusphinx/cmudict; licence: LICENSE.cmudict in this folder). Kept is
the first pronunciation, without stress, of every word that can be a mixed token (letters with inner ' and -). A line is
`word codes`, one character per phone; `A` is the first phone of `k2d.text.english.PHONES`.
"""

import gzip
import re
import sys
from pathlib import Path
from typing import Final

from k2d.text.english import PHONES

WORD: Final = re.compile(r"[a-z]+(?:['-][a-z]+)*")


def build(source: Path, target: Path) -> int:
    """Write the compact dictionary and return its number of words. The same input always gives the same bytes."""
    codes = {phone: chr(ord("A") + index) for index, phone in enumerate(PHONES)}
    lines = []
    for line in source.read_text("utf-8").splitlines():
        word, *phones = line.split("#")[0].split()
        if WORD.fullmatch(word):  # leaves out second pronunciations, written word(2)
            lines.append(f"{word} {''.join(codes[phone.rstrip('012')] for phone in phones)}\n")
    target.write_bytes(gzip.compress("".join(lines).encode("ascii"), 9, mtime=0))
    return len(lines)


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), Path(sys.argv[2])), "words")
