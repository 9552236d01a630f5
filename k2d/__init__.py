"""k2d: label, filter and distil code-switched speech.

Importing this package pulls in no torch, no CTranslate2, no FastAPI and no RQ.
"""

__version__ = "0.1.0"
