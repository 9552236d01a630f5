"""Whisper engines behind one protocol: windows of at most 30 s in, tokens with timestamps and signals out."""
