"""Where tests find things."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "audio"
AUDIO_CASES = ROOT / "tests" / "data" / "audio-cases"
SHARED = ROOT.parent / "shared" / "data"  # the measuring data beside the repository; may be absent
