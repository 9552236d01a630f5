"""What a stub process checks and sets before its model is loaded."""

import json
import os

import pytest

from k2d.errors import ModelError
from services.inference import triton_process


@pytest.mark.parametrize(
    ("numpy_version", "triton_version", "fits"),
    [
        ("1.26.4", "2.51.0", True),
        ("1.26.4", "", True),
        ("2.0.0", "2.51.0", False),
        ("2.4.6", "", False),
        ("2.4.6", "nightly", False),
        ("2.4.6", "2.52.0", True),
        ("2.4.6", "2.56.0", True),
        ("2.4.6", "3.0.0", True),
    ],
)
def test_numpy_2_needs_a_server_built_for_it(numpy_version: str, triton_version: str, fits: bool) -> None:
    if fits:
        triton_process.check_numpy(numpy_version, triton_version)
    else:
        with pytest.raises(ModelError, match="empty answers"):
            triton_process.check_numpy(numpy_version, triton_version)


@pytest.mark.parametrize(("visible", "seen"), [(None, "1"), ("", "1"), ("4,6", "6"), ("GPU-a,GPU-b", "GPU-b")])
def test_an_instance_sees_only_its_gpu(monkeypatch: pytest.MonkeyPatch, visible: str | None, seen: str) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    triton_process.choose_device({"model_instance_kind": "CPU", "model_instance_device_id": "1"})
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible
    triton_process.choose_device({"model_instance_kind": "GPU", "model_instance_device_id": "1"})
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


def test_instances_on_a_cpu_are_counted_and_one_on_a_gpu_is_alone() -> None:
    config = json.dumps({"instance_group": [{"count": 2}, {"count": "3"}]})
    assert triton_process.instances({"model_instance_kind": "CPU", "model_config": config}) == 5
    assert triton_process.instances({"model_instance_kind": "GPU", "model_config": config}) == 1
