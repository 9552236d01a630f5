"""Whisper engines behind one protocol: they decode windows of at most 30 s to text with timestamps."""
