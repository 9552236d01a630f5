"""Trainer tests: `lakes`, `factories` and `weights` lie above."""

import sys
from pathlib import Path

for folder in Path(__file__).parents[1:3]:
    sys.path.insert(0, str(folder))
