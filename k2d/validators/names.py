"""Names of validators. A batch's validators are joined by "+"; the first is the paper's. Pure.

    perturbed                             the teacher's weights on perturbed audio, a fallback
    Systran/faster-whisper-small          a second model
    perturbed+second-decode               labels that stay unresolved are decoded again
    small+perturbed+probe:1a2b3c4d5e6f    three validators
    perturbed+packaged:whisper-tiny.en    an English-only Whisper judges English words
    openai:http://gpu1:8000/v1#whisper-1  any server with OpenAI's transcription endpoint
    sherpa:/models/sense-voice            a folder with a model of sherpa-onnx

To add a kind of validator, write a module with `open_validator` (as k2d/validators/second_decode.py has it), and add it
to KINDS. The module may also have `check(name, settings)`, which raises for a name that a batch may not have, and
`describe(name, settings)`, which tries the validator for `k2d doctor`.
"""

import re
from dataclasses import dataclass
from typing import Final

from k2d.errors import BadRequest
from k2d.inference.address import is_address

PERTURBED: Final = "perturbed"  # the teacher's weights on perturbed audio
SECOND_DECODE: Final = "second-decode"  # the teacher with other options, for labels that the others leave unresolved
PROBE: Final = "probe:"  # followed by the digest of a CTC probe on the teacher's encoder (`k2d probe`)
OPENAI: Final = "openai:"  # followed by a base URL, `#` and a model
SHERPA: Final = "sherpa:"  # followed by a folder
SEPARATOR: Final = "+"
MAX_VALIDATORS: Final = 16


@dataclass(frozen=True, slots=True)
class ValidatorKind:
    """A kind of validator."""

    names: re.Pattern[str]  # that validators of this kind have
    module: str  # its function `open_validator` opens one
    is_model: bool = False  # it is a Whisper of its own, named by its reference
    not_first: str | None = None  # why it cannot be the first validator; None if it can


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
    ValidatorKind(re.compile(OPENAI + ".*", re.DOTALL), "k2d.validators.openai"),
    ValidatorKind(re.compile(SHERPA + ".*", re.DOTALL), "k2d.validators.sherpa"),
    ValidatorKind(
        re.compile(r"(?!.*://).+\.en", re.DOTALL),  # Whisper's English-only models have such names
        "k2d.validators.english",
        is_model=True,
        not_first="an English-only model judges English words only",
    ),
    ValidatorKind(re.compile(".+", re.DOTALL), "k2d.validators.model", is_model=True),  # any other name is a model's
)

_EARLIER: Final = {"rescue": SECOND_DECODE}  # names of version 0.1, which batches and settings may still have
_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")
_HINT: Final = (
    f"validators are joined by '+': a model, {PERTURBED!r}, '{OPENAI}URL#MODEL', '{SHERPA}FOLDER', '{PROBE}DIGEST', "
    f"{SECOND_DECODE!r}; "
    f"for example {PERTURBED}+{SECOND_DECODE}"
)


def kind_of(name: str) -> ValidatorKind:
    """The kind of a validator by its name."""
    return next(kind for kind in KINDS if kind.names.fullmatch(name))


def validators_of(reference: str) -> tuple[str, ...]:
    """Split a reference into the names of its validators, in order. Does not check that models exist.

        >>> validators_of("small+perturbed")
        ('small', 'perturbed')

    Raises:
        BadRequest: no validator, too many, an empty or repeated one, or a first one that writes no text or depends on
            others.
    """
    names = tuple(_EARLIER.get(part.strip(), part.strip()) for part in reference.split(SEPARATOR))
    if len(names) > MAX_VALIDATORS:
        raise BadRequest(f"{len(names)} validators", hint=f"at most {MAX_VALIDATORS}: each checks every chunk")
    if not all(names):
        raise BadRequest(f"empty entry in K2D_VALIDATOR: {reference[:200]!r}", hint=_HINT)
    if len(set(names)) < len(names):
        raise BadRequest(f"K2D_VALIDATOR names a validator twice: {reference[:200]!r}", hint=_HINT)
    for name in names:
        if name.startswith(PROBE) and not _DIGEST.fullmatch(name.removeprefix(PROBE)):
            raise BadRequest(f"not the digest of a probe: {name[:200]!r}", hint="`k2d probe` prints it")
    if (reason := kind_of(names[0]).not_first) is not None:
        raise BadRequest(
            f"{names[0][:200]} cannot be the first validator: {reason}",
            hint=f"for example {PERTURBED}+{names[0][:200]}",
        )
    if sum(map(_is_server, names)) > 1:
        raise BadRequest(
            f"K2D_VALIDATOR names servers of two models: {reference[:200]!r}",
            hint="name one model's servers, comma-separated",
        )
    return names


def models_of(reference: str) -> tuple[str, ...]:
    """The names of the validators that are models of their own, in order; errors as for `validators_of`."""
    return tuple(name for name in validators_of(reference) if kind_of(name).is_model)


def served(reference: str) -> str:
    """The model that the validator's server loads; `PERTURBED` if no validator is a model that a server can have.

    English-only models are opened where the worker runs.

    Raises:
        BadRequest: several models, or as `validators_of`.
    """
    models = [name for name in models_of(reference) if kind_of(name).not_first is None]
    if len(models) > 1:
        raise BadRequest(
            f"a server loads one model, and K2D_VALIDATOR names {len(models)}: {reference[:200]!r}",
            hint="name one in K2D_VALIDATOR",
        )
    return models[0] if models else PERTURBED


def address_of(reference: str) -> str:
    """The address of servers in a teacher or validator reference; the reference itself if it contains none."""
    return next((part.strip() for part in reference.split(SEPARATOR) if _is_server(part.strip())), reference)


def _is_server(name: str) -> bool:
    """Whether a name is an address of inference servers that have a model."""
    return is_address(name) and not name.startswith(OPENAI)
