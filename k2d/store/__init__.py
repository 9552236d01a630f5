"""The lake: Parquet and JSON under one fsspec root. Nothing else in the project touches its paths.

What lies where, and why, is in docs/store.md.
"""

from k2d.store.examinations import Examination
from k2d.store.labels import LabelWriter
from k2d.store.lake import Lake

__all__ = ["Examination", "LabelWriter", "Lake"]
