"""A panel in words: listeners joined by "+", the first of them the paper's validator. Pure.

perturbed                             the teacher's weights on perturbed audio: the fallback
Systran/faster-whisper-small          a second model
perturbed+rescue                      … and another decode of what is unresolved then
small+perturbed+probe:1a2b3c4d5e6f    three opinions: a quorum
"""

import re

from k2d.errors import BadRequest
from k2d.inference.address import is_address

PERTURBED = "perturbed"  # the teacher's weights on perturbed audio
RESCUE = "rescue"  # the teacher again, under other options, where those before it leave a label unresolved
PROBE = "probe:"  # a CTC probe on the teacher's encoder, by its digest (`k2d probe`)
JOINT = "+"

_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_HINT = f"listeners are joined by '+': a model, {PERTURBED!r}, '{PROBE}DIGEST', {RESCUE!r}; say {PERTURBED}+{RESCUE}"


def listeners_of(validator: str) -> tuple[str, ...]:
    """The listeners of a panel, in order; whether a model of that name exists is not asked here.

    Raises:
        BadRequest: no listener, an empty or repeated one, a first one that writes no text or waits for others.
    """
    names = tuple(part.strip() for part in validator.split(JOINT))
    if not all(names):
        raise BadRequest(f"a listener has no name: {validator[:200]!r}", hint=_HINT)
    if len(set(names)) < len(names):
        raise BadRequest(f"a listener is named twice: {validator[:200]!r}", hint=_HINT)
    for name in names:
        if name.startswith(PROBE) and not _DIGEST.fullmatch(name.removeprefix(PROBE)):
            raise BadRequest(f"no digest of a probe: {name[:200]!r}", hint="`k2d probe` prints its name")
    if names[0] == RESCUE:
        raise BadRequest("rescue comes after others: it hears what they leave unresolved", hint=_HINT)
    if names[0].startswith(PROBE):
        raise BadRequest(
            "a probe comes after others: it writes no text to compare words with", hint=f"{PERTURBED}+{names[0]}, say"
        )
    if sum(map(is_address, names)) > 1:
        raise BadRequest(
            f"servers of two models in one panel: {validator[:200]!r}", hint="several of one model are comma-separated"
        )
    return names


def models_of(validator: str) -> tuple[str, ...]:
    """The listeners of a panel that are models of their own, in order; errors as for `listeners_of`."""
    return tuple(
        name for name in listeners_of(validator) if name not in (PERTURBED, RESCUE) and not name.startswith(PROBE)
    )


def served(validator: str) -> str:
    """What a validator's server has: the panel's one model; `PERTURBED` where there is none, which nobody serves.

    Raises:
        BadRequest: several models, or as `listeners_of`.
    """
    models = models_of(validator)
    if len(models) > 1:
        raise BadRequest(f"a server has one model, {validator[:200]!r} several", hint="name one in K2D_VALIDATOR")
    return models[0] if models else PERTURBED


def address_of(reference: str) -> str:
    """The servers that a teacher or a panel names; the reference itself where it names none."""
    return next((part.strip() for part in reference.split(JOINT) if is_address(part)), reference)
