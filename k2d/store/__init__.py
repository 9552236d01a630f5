"""The lake: everything that is stored, as Parquet and JSON files under one fsspec root.

No other package uses paths inside of the lake. docs/store.md describes the layout.
"""

from k2d.store.examinations import Examination
from k2d.store.labels import LabelWriter
from k2d.store.lake import Lake

__all__ = ["Examination", "LabelWriter", "Lake"]
