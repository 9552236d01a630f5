"""Texts and numbers in, verdicts out: distances, evidence, policies. Pure: no I/O."""
