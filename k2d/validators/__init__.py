"""Validators check labels by transcribing the audio in their own way. This package's top level has only their names."""

from k2d.validators.names import (
    PERTURBED,
    PROBE,
    SECOND_DECODE,
    address_of,
    kind_of,
    models_of,
    served,
    validators_of,
)

__all__ = ["PERTURBED", "PROBE", "SECOND_DECODE", "address_of", "kind_of", "models_of", "served", "validators_of"]
