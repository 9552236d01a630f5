"""Writes Triton's model repository for teacher and validator from the settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from k2d.errors import BadRequest
from k2d.inference.address import is_address, plain
from k2d.settings import PREFIX, Settings
from k2d.validators import PERTURBED, served

MODELS: Final = ("teacher", "validator")
# The stub's Python is isolated: it ignores PYTHONPATH, and looks for modules in the working folder first
MODEL_CODE: Final = """\
import sys

sys.path[:] = [*{path}, *filter(None, sys.path)]

from services.inference.triton_model import TritonPythonModel  # noqa: E402, F401
"""
MICROSECONDS: Final = 1_000_000
# of K2D_LINGER_S: Triton delays every request, our batcher only waits for callers it just answered
LINGER_SHARE: Final = 0.2

# Field names are those of Triton's model configuration (model_config.proto). Windows differ in length: ragged batches.
# response_cache stays off: every window is new, and the samples would have to be hashed to find that out.
CONFIG: Final = """\
name: "{name}"
backend: "python"
max_batch_size: {batch_size}
input [
  {{ name: "HEAD" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "SAMPLES" data_type: TYPE_INT16 dims: [ -1 ] allow_ragged_batch: true }}
]
output [
  {{ name: "ANSWER" data_type: TYPE_STRING dims: [ 1 ] }}
]
instance_group [
  {{ count: {instances} kind: {kind} }}
]
dynamic_batching {{
  preferred_batch_size: [ {batch_size} ]
  max_queue_delay_microseconds: {linger_us}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {timeout_us}
    allow_timeout_override: true
    max_queue_size: {max_waiting}
  }}
}}
response_cache {{ enable: false }}
"""


def write(settings: Settings, models: Sequence[str], *, into: Path, path: Sequence[str] = ()) -> Path:
    """Write a repository with `models` and return its folder; what was there of them is replaced.

        write(load(), ["teacher"], into=Path("repository"))

    `path`: folders in which the stub searches modules before its own.

    Raises:
        BadRequest: an unknown name, or a model that this server cannot hold.
    """
    for name in models:
        check(settings, name)
        code = into / name / "1" / "model.py"
        code.parent.mkdir(parents=True, exist_ok=True)
        code.write_text(MODEL_CODE.format(path=list(path)), "utf-8")
        (into / name / "config.pbtxt").write_text(config(settings, name), "utf-8")
    return into


def config(settings: Settings, name: str) -> str:
    """One model's config.pbtxt.

    KIND_AUTO is one instance group on CPU, or one on each GPU; only K2D_DEVICE=cpu keeps Triton off the GPUs.
    """
    return CONFIG.format(
        name=name,
        batch_size=settings.batch_size,
        instances=settings.triton_instances,
        kind="KIND_CPU" if settings.device == "cpu" else "KIND_AUTO",
        linger_us=round(settings.linger_s * LINGER_SHARE * MICROSECONDS),
        timeout_us=round(settings.server_timeout_s * MICROSECONDS),
        max_waiting=settings.max_waiting,
    )


def check(settings: Settings, name: str) -> None:
    """Refuse a name or a setting that cannot be served.

    Raises:
        BadRequest: see `write`.
    """
    if name not in MODELS:
        raise BadRequest(f"unknown model to serve: {name!r}", hint=f"models are: {', '.join(MODELS)}")
    reference = plain(settings.teacher if name == "teacher" else served(settings.validator))
    variable = PREFIX + name.upper()
    if reference == PERTURBED:
        raise BadRequest(
            f"{variable} is {PERTURBED!r}, which is no model of its own", hint="the teacher's server is enough for it"
        )
    if is_address(reference):
        raise BadRequest(f"{variable} is the address {reference!r}", hint="a server needs the model itself there")
