"""Letter-to-sound rules for English words that are not in the dictionary.

The rules are approximate on purpose. Both sides of a comparison are pronounced by the same rules, so it is enough that
similar spellings get similar phones and that every word gets some.
"""

import re
from typing import Final

# (pattern, phones). At each position the first pattern that matches is applied and consumed; lookarounds see the whole
# word. Longer spellings come before shorter ones, word beginnings and endings before the general case. "=" stands for
# the consonant of a doubled letter.
_RULES: Final[tuple[tuple[str, str], ...]] = (
    # endings
    (r"tion(?=s?$)", "SH AH N"),
    (r"ssion(?=s?$)", "SH AH N"),
    (r"sion(?=s?$)", "ZH AH N"),
    (r"cian(?=s?$)", "SH AH N"),
    (r"tial(?=ly$|$)", "SH AH L"),
    (r"cial(?=ly$|$)", "SH AH L"),
    (r"[ct]ious(?=ly$|$)", "SH AH S"),
    (r"ture(?=s?$)", "CH ER"),
    (r"(?<=[aeiouy]..)ous(?=ly$|$)", "AH S"),
    (r"(?<=..)age(?=s?$)", "IH JH"),
    (r"(?<=...)ate(?=s?$)", "EY T"),
    (r"(?<=[^aeiou])les?$", "AH L"),
    (r"(?<=..[^aeiou])al(?=ly$|$)", "AH L"),
    (r"(?<=..)ing(?=s?$)", "IH NG"),
    (r"(?<=[td])ed$", "IH D"),
    (r"(?<=[pkfsx])ed$", "T"),
    (r"(?<=.[bcdglmnrvwyz])ed$", "D"),
    (r"(?<=[sxz])es$", "IH Z"),
    (r"(?<=..)es$", "Z"),
    (r"(?<=[bdglmnrvwy])s$", "Z"),
    (r"(?<=..)ey$", "IY"),
    (r"(?<=..)ie(?=s?$)", "IY"),
    (r"(?<=..)y$", "IY"),
    (r"^(?:m)y$", "M AY"),
    (r"(?<=[aeiouy][^aeiou])e$|(?<=[aeiouy][^aeiou][^aeiou])e$", ""),
    (r"(?<=[^aeiou])e$", "IY"),
    (r"(?<=[aeiou])e$", ""),
    (r"(?<=.)o(?=s?$)", "OW"),
    (r"(?<=.)a(?=s?$)", "AH"),
    (r"(?<=.)i(?=s?$)", "IY"),
    (r"(?<=.)u(?=s?$)", "UW"),
    (r"(?<=..)er(?=s?$)", "ER"),
    (r"(?<=..)or(?=s?$)", "ER"),
    # beginnings
    (r"^kn", "N"),
    (r"^gn", "N"),
    (r"^wr", "R"),
    (r"^ps", "S"),
    (r"^pn", "N"),
    (r"^x", "Z"),
    (r"^rh", "R"),
    (r"^mc", "M AH K"),
    (r"^y", "Y"),
    (r"^wh", "W"),
    (r"^sch", "SH"),
    (r"^re(?=[^aeiour])", "R IY"),
    (r"^de(?=[^aeiou][aeiou])", "D IH"),
    # groups of consonants
    (r"tch", "CH"),
    (r"sch", "SH"),
    (r"dge", "JH"),
    (r"dg(?=[iy])", "JH"),
    (r"ch(?=r|l)", "K"),
    (r"ch", "CH"),
    (r"sh", "SH"),
    (r"th", "TH"),
    (r"ph", "F"),
    (r"ck", "K"),
    (r"cq", "K"),
    (r"qu", "K W"),
    (r"q", "K"),
    (r"sc(?=[eiy])", "S"),
    (r"gh", "G"),
    (r"ng(?=[aeioulr])", "NG G"),
    (r"ng", "NG"),
    (r"n(?=[kxq])", "NG"),
    (r"mb$", "M"),
    (r"x", "K S"),
    (r"wh", "W"),
    (r"cc(?=[eiy])", "K S"),
    (r"c(?=[eiy])", "S"),
    (r"zz", "Z"),
    (r"ss", "S"),
    (r"gg", "G"),
    (r"g(?=[ey])|g(?=i[^lrf])", "JH"),
    (r"([bdfklmnprtv])\1", "="),
    (r"cc?", "K"),
    (r"j", "JH"),
    (r"y(?=[aeiou])", "Y"),
    (r"(?<=[aeiou])s(?=[aeiou])", "Z"),
    # groups of vowels
    (r"eigh", "EY"),
    (r"augh", "AO"),
    (r"ough", "AO"),
    (r"igh", "AY"),
    (r"eau", "OW"),
    (r"ieu", "UW"),
    (r"ee", "IY"),
    (r"ear", "IH R"),
    (r"ea", "IY"),
    (r"oor", "AO R"),
    (r"ook", "UH K"),
    (r"oo", "UW"),
    (r"ow$", "OW"),
    (r"ow", "AW"),
    (r"ould", "UH D"),
    (r"our", "AO R"),
    (r"ou", "AW"),
    (r"air", "EH R"),
    (r"a[iy]", "EY"),
    (r"o[iy]", "OY"),
    (r"a[uw]", "AO"),
    (r"e[uw]", "UW"),
    (r"ei", "IY"),
    (r"ie", "IY"),
    (r"oa", "OW"),
    (r"oe", "OW"),
    (r"ui", "UW"),
    (r"ue", "UW"),
    (r"ae", "EY"),
    (r"io", "IY OW"),
    (r"ia", "IY AH"),
    # vowels before r
    (r"are$", "EH R"),
    (r"ire$", "AY ER"),
    (r"ure$", "Y UH R"),
    (r"ore$", "AO R"),
    (r"ere$", "IH R"),
    (r"arr", "EH R"),
    (r"ar(?=[aeiouy])", "EH R"),
    (r"er(?=[aeiou])", "EH R"),
    (r"ir(?=[aeiou])", "IH R"),
    (r"or", "AO R"),
    (r"ar", "AA R"),
    (r"[eiu]r", "ER"),
    (r"yr", "IH R"),
    # long before one consonant and a silent e, or -ing
    (r"a(?=[^aeiouwxyr](?:e|es|ed|er|ing)$)", "EY"),
    (r"e(?=[^aeiouwxyr](?:e|es|ed)$)", "IY"),
    (r"i(?=[^aeiouwxyr](?:e|es|ed|er|ing)$)", "AY"),
    (r"o(?=[^aeiouwxyr](?:e|es|ed|er|ing)$)", "OW"),
    (r"u(?=[^aeiouwxyr](?:e|es|ed|er|ing)$)", "UW"),
    (r"y(?=[^aeiouwxyr](?:e|es|ed|ing)$)", "AY"),
    (r"o(?=l[dlt])", "OW"),
    (r"a(?=ll$|lk|lt)", "AO"),
    (r"i(?=nd$|ld$|gn$)", "AY"),
    (r"wa(?=[nst])", "W AA"),
    # unstressed syllables of long words
    (r"(?<=..[^aeiou])[aeo](?=n[ts]?$|l$|m$|nce$|ncy$)", "AH"),
    (r"(?<=...)us$", "AH S"),
    # single letters
    (r"a", "AE"),
    (r"e", "EH"),
    (r"i", "IH"),
    (r"o", "AA"),
    (r"u", "AH"),
    (r"y", "IH"),
    (r"b", "B"),
    (r"d", "D"),
    (r"f", "F"),
    (r"g", "G"),
    (r"h(?=[aeiouy])", "HH"),
    (r"h", ""),
    (r"k", "K"),
    (r"l", "L"),
    (r"m", "M"),
    (r"n", "N"),
    (r"p", "P"),
    (r"r", "R"),
    (r"s", "S"),
    (r"t", "T"),
    (r"v", "V"),
    (r"w", "W"),
    (r"z", "Z"),
)

_COMPILED: Final = tuple((re.compile(pattern), tuple(phones.split())) for pattern, phones in _RULES)


def letter_to_sound(word: str) -> tuple[str, ...]:
    """Return the phones of a word of a–z by rules; may be empty for a single silent letter.

    Raises:
        ValueError: the word has a character outside a–z.
    """
    phones: list[str] = []
    position = 0
    while position < len(word):
        for pattern, sounds in _COMPILED:
            match = pattern.match(word, position)
            if match:
                phones += (match[1].upper(),) if sounds == ("=",) else sounds
                position = match.end()
                break
        else:
            raise ValueError(f"letter-to-sound rules take a–z only, not {word!r}")
    return tuple(phones)
