"""Where tests find things."""

import tarfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "audio"
AUDIO_CASES = ROOT / "tests" / "data" / "audio-cases"
SHARED = ROOT.parent / "shared" / "data"  # the measuring data beside the repository; may be absent

# of TarFile.extractall; Python before 3.11.4 has no filters
UNPACKED: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
