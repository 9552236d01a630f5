"""Where tests find things."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "audio"
SHARED = ROOT.parent / "shared" / "data"  # the measuring data beside the repository; may be absent
