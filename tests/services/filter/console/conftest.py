"""The Chromium of tests of pages."""

from console import browser

__all__ = ["browser"]
