"""Checks and sets up a stub process before its model is loaded: numpy's version, its GPU, its share of the cores."""

import json
import os
from typing import Final

from k2d.errors import ModelError

# The first Triton whose Python backend is built for numpy 2 (24.11, pybind11 2.12: python_backend pull request 384).
# Before it, numpy 2 makes numeric outputs silently empty, and string outputs crash the stub.
NUMPY_2_SINCE: Final = (2, 52)


def check_numpy(numpy_version: str, triton_version: str) -> None:
    """Refuse a numpy this server's Python backend was not built for; an unknown server counts as an old one.

    Raises:
        ModelError: numpy 2 under a Triton before 2.52 (24.11).
    """
    parts = triton_version.split(".")[:2]
    known = tuple(int(part) for part in parts) if len(parts) == 2 and all(map(str.isdigit, parts)) else (0, 0)
    if int(numpy_version.split(".")[0]) >= 2 and known < NUMPY_2_SINCE:
        raise ModelError(
            f"numpy {numpy_version} gives empty answers under Triton {triton_version or 'of unknown version'}",
            hint="install numpy<2 in the model's environment, or set TRITON_SERVER_VERSION to what the server is",
        )


def choose_device(args: dict[str, str]) -> None:
    """Let this process see only the GPU that Triton gave its instance; CUDA must not have been used before."""
    if args["model_instance_kind"] != "GPU":
        return
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    number = int(args["model_instance_device_id"])
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if number < len(visible) else str(number)


def instances(args: dict[str, str]) -> int:
    """Copies of this model on CPU, which share its cores; 1 for one on a GPU."""
    if args["model_instance_kind"] == "GPU":
        return 1
    return sum(int(group["count"]) for group in json.loads(args["model_config"])["instance_group"])
