"""Pure functions over text: normalise, mixed tokens, phonemes, repetition, known phrases.

Nothing here reads or writes anything but its own package data, once, when first needed.
"""
