"""Transcribers: whoever can turn windows into text, in this process or elsewhere."""
