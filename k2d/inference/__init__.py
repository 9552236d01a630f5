"""Transcribers: models that decode windows to text, in this process or on inference servers."""
