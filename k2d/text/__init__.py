"""Pure functions over text: normalisation, mixed tokens, phonemes, repetition, known hallucination phrases.

The only files read are the package's own data files, each once, on first use.
"""
