"""Build cmudict.txt.gz: `python -m k2d.text.data.build_cmudict cmudict.dict k2d/text/data/cmudict.txt.gz`.

The text is CMU's own (https://github.com/cmusphinx/cmudict, file cmudict.dict); its licence lies beside as
LICENSE.cmudict. What is kept: the first pronunciation of every word that a mixed token can be (letters, inner ' and -),
without stress. A line is `word codes`, one character a phone, `A` being the first phone of `k2d.text.english.PHONES`.
"""

import gzip
import re
import sys
from pathlib import Path

from k2d.text.english import PHONES

WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")


def build(source: Path, target: Path) -> int:
    """Write the compact dictionary; the same source gives the same bytes. Returns the number of words."""
    codes = {phone: chr(ord("A") + index) for index, phone in enumerate(PHONES)}
    lines = []
    for line in source.read_text("utf-8").splitlines():
        word, *phones = line.split("#")[0].split()
        if WORD.fullmatch(word):  # leaves out second pronunciations, which read word(2)
            lines.append(f"{word} {''.join(codes[phone.rstrip('012')] for phone in phones)}\n")
    target.write_bytes(gzip.compress("".join(lines).encode("ascii"), 9, mtime=0))
    return len(lines)


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), Path(sys.argv[2])), "words")
