"""The validators of a batch by name: joined by "+", the first of them the paper's validator. Pure.

perturbed                             the teacher's weights on perturbed audio: the fallback
Systran/faster-whisper-small          a second model
perturbed+second-decode               … and another decode of the labels that are unresolved then
small+perturbed+probe:1a2b3c4d5e6f    three validators: a quorum

To add a kind of validator: a module with `open_validator` (as in k2d/validators/second_decode.py), and its entry in KINDS.
"""

import re
from dataclasses import dataclass
from typing import Final

from k2d.errors import BadRequest
from k2d.inference.address import is_address

PERTURBED: Final = "perturbed"  # the teacher's weights on perturbed audio
SECOND_DECODE: Final = "second-decode"  # the teacher again, with other options, for labels that others leave unresolved
PROBE: Final = "probe:"  # a CTC probe on the teacher's encoder, by its digest (`k2d probe`)
JOINT: Final = "+"


@dataclass(frozen=True, slots=True)
class ValidatorKind:
    """One kind of validator: which names are of it, and the module whose `open_validator` opens one."""

    names: re.Pattern[str]
    module: str
    is_model: bool = False  # weights of its own, which a server can have
    not_first: str | None = None  # why it cannot be the first validator; None: it can


KINDS: Final = (
    ValidatorKind(re.compile(PERTURBED), "k2d.validators.model"),
    ValidatorKind(
        re.compile(SECOND_DECODE),
        "k2d.validators.second_decode",
        not_first=f"{SECOND_DECODE!r} only decodes what the others leave unresolved",
    ),
    ValidatorKind(
        re.compile(PROBE + ".*"),
        "k2d.validators.probe.validator",
        not_first="a probe writes no text, so there is no error rate",
    ),
    ValidatorKind(re.compile(".+", re.DOTALL), "k2d.validators.model", is_model=True),  # any other name: a model's
)

_EARLIER: Final = {"rescue": SECOND_DECODE}  # what version 0.1 called it: batches and settings may still say so
_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")
_HINT: Final = (
    f"validators are joined by '+': a model, {PERTURBED!r}, '{PROBE}DIGEST', {SECOND_DECODE!r}; "
    f"for example {PERTURBED}+{SECOND_DECODE}"
)


def kind_of(name: str) -> ValidatorKind:
    """The kind of a validator, by its name."""
    return next(kind for kind in KINDS if kind.names.fullmatch(name))


def validators_of(reference: str) -> tuple[str, ...]:
    """Split a reference into the names of its validators, in order; whether a model of a name exists is not checked.

        validators_of("small+perturbed")  -> ("small", "perturbed")

    Raises:
        BadRequest: no validator, an empty or repeated one, a first one that writes no text or depends on others.
    """
    names = tuple(_EARLIER.get(part.strip(), part.strip()) for part in reference.split(JOINT))
    if not all(names):
        raise BadRequest(f"empty entry in K2D_VALIDATOR: {reference[:200]!r}", hint=_HINT)
    if len(set(names)) < len(names):
        raise BadRequest(f"K2D_VALIDATOR names a validator twice: {reference[:200]!r}", hint=_HINT)
    for name in names:
        if name.startswith(PROBE) and not _DIGEST.fullmatch(name.removeprefix(PROBE)):
            raise BadRequest(f"not the digest of a probe: {name[:200]!r}", hint="`k2d probe` prints its name")
    if (why := kind_of(names[0]).not_first) is not None:
        raise BadRequest(
            f"{names[0][:200]} cannot be the first validator: {why}", hint=f"for example {PERTURBED}+{names[0][:200]}"
        )
    if sum(map(is_address, names)) > 1:
        raise BadRequest(
            f"K2D_VALIDATOR names servers of two models: {reference[:200]!r}",
            hint="name one model's servers, comma-separated",
        )
    return names


def models_of(reference: str) -> tuple[str, ...]:
    """The validators that are models of their own, in order; errors as for `validators_of`."""
    return tuple(name for name in validators_of(reference) if kind_of(name).is_model)


def served(reference: str) -> str:
    """The model that a validator's server loads; `PERTURBED` where no validator is a model of its own.

    Raises:
        BadRequest: several models, or as `validators_of`.
    """
    models = models_of(reference)
    if len(models) > 1:
        raise BadRequest(
            f"a server loads one model, and K2D_VALIDATOR names {len(models)}: {reference[:200]!r}",
            hint="name one in K2D_VALIDATOR",
        )
    return models[0] if models else PERTURBED


def address_of(reference: str) -> str:
    """The servers that a teacher or validator reference names; the reference itself where it names none."""
    return next((part.strip() for part in reference.split(JOINT) if is_address(part)), reference)
