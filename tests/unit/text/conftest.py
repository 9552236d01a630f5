"""First use loads a lexicon: no deadline for a single example."""

from hypothesis import settings

settings.register_profile("lexicon", deadline=None)
settings.load_profile("lexicon")
