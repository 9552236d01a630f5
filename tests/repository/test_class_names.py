"""Names: a class is called what it is, once in the whole repository, and never by a bare participle."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from places import ROOT

# What was done is no name for what came of it: `Heard`, `Told`. To be added to whenever another one is met.
WORDS = """
Added Aligned Asked Averaged Batched Begun Bound Broken Built Changed Checked Chosen Compared Converted Counted Cut
Decoded Done Drawn Encoded Ended Failed Fetched Fitted Folded Found Frozen Gathered Given Gone Heard Held Joined
Judged Kept Known Labeled Left Listed Loaded Lost Made Mapped Matched Measured Met Moved Named Opened Packed Paired
Parsed Planned Played Proved Ranked Read Refused Rejected Reviewed Said Salvaged Scored Seen Selected Sent Shown
Sorted Spoken Stored Sung Taken Timed Told Traced Trained Transcribed Used Validated Walked Weighed Written
"""
PARTICIPLES = frozenset(WORDS.split())


def classes() -> Iterator[tuple[str, str]]:
    """(name, where) of every class of the code."""
    for package in ("k2d", "services", "trainer"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    yield node.name, str(Path(path).relative_to(ROOT))


def test_no_class_is_called_by_a_bare_participle():
    assert [(name, where) for name, where in classes() if name.lstrip("_") in PARTICIPLES] == []


def test_a_class_name_is_used_once():
    places = defaultdict(list)
    for name, where in classes():
        places[name].append(where)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
