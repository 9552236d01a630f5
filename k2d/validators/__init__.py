"""Who doubts: a panel of listeners, each with an opinion on every chunk. Importing this loads names only."""

from k2d.validators.names import PERTURBED, PROBE, RESCUE, address_of, listeners_of, models_of, served

__all__ = ["PERTURBED", "PROBE", "RESCUE", "address_of", "listeners_of", "models_of", "served"]
