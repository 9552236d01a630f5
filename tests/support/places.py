"""Where tests find things."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "audio"
SHARED = ROOT.parent / "shared" / "data"  # the measuring data beside the repository; may be absent
