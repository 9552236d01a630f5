"""Validators: whoever checks a label, each with its own hypotheses. Importing this loads names only."""

from k2d.validators.names import PERTURBED, PROBE, SECOND_DECODE, address_of, models_of, served, validators_of

__all__ = ["PERTURBED", "PROBE", "SECOND_DECODE", "address_of", "models_of", "served", "validators_of"]
