"""The model code that Triton's Python backend runs, over the same engine as the FastAPI host.

`services.tritonserver.repository` writes a model.py that imports `TritonPythonModel` from here. This module runs inside
the backend's stub process only, where `triton_python_backend_utils` exists.
"""

import json
import os
from typing import Any

import numpy as np
import structlog
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

from k2d.errors import K2DError
from k2d.inference import golden, triton_errors, wire
from k2d.inference.address import plain
from k2d.inference.open import engine_of
from k2d.logs import setup
from k2d.schema import ModelInfo
from k2d.settings import Settings, load
from k2d.validators import served
from k2d.whisper.engine import Engine
from services.inference import triton_process
from services.inference.triton_batch import BatchHandler, TritonAnswer, TritonRequest
from services.inference.triton_metrics import TritonMetrics

log = structlog.get_logger()


class TritonPythonModel:
    """Teacher or validator in one stub process. Triton calls initialize once, execute for each batch, finalize last."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights and transcribe the golden clips: a model that fails in either never becomes ready.

        Raises:
            K2DError: impossible settings, weights that are missing or damaged, no text for clear speech.
        """
        triton_process.check_numpy(np.__version__, os.environ.get("TRITON_SERVER_VERSION", ""))
        settings = load()
        setup(settings)
        role = args["model_name"]
        triton_process.choose_device(args)
        self._engine: Engine = _open(settings, role=role, instances=triton_process.instances(args))
        info: ModelInfo = self._engine.model
        golden_text = golden.check(self._engine, must_match=settings.golden == "on")
        log.info("golden clips transcribed", model=info.reference, fingerprint=info.fingerprint, text=golden_text)
        self._metrics = TritonMetrics(role, info)
        description = wire.describe(info, batch_size=settings.batch_size, golden=golden_text)
        self._handler = BatchHandler(self._engine, settings.batch_size, description, observe=self._metrics.engine_call)

    def execute(self, requests: list[Any]) -> None:
        """Answer a batch. Answers leave one by one: requests that need no engine do not wait for those that do."""
        self._handler([self._request(request) for request in requests])

    def finalize(self) -> None:
        """Free the weights."""
        self._engine.close()

    def _request(self, request: Any) -> TritonRequest:
        sender = request.get_response_sender()

        def reply(answer: TritonAnswer) -> None:
            sender.send(self._response(answer), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

        head = pb_utils.get_input_tensor_by_name(request, "HEAD").as_numpy().reshape(-1)
        samples = pb_utils.get_input_tensor_by_name(request, "SAMPLES").as_numpy().reshape(-1)
        return TritonRequest(bytes(head[0]), samples, cancelled=request.is_cancelled, reply=reply)

    def _response(self, answer: TritonAnswer) -> Any:
        if isinstance(answer, K2DError):
            self._metrics.refused(answer.code)
            error = pb_utils.TritonError(triton_errors.dump(answer), _triton_code(answer))
            return pb_utils.InferenceResponse(error=error)
        text = json.dumps(answer, ensure_ascii=False).encode()
        return pb_utils.InferenceResponse([pb_utils.Tensor("ANSWER", np.array([[text]], dtype=np.object_))])


def _open(settings: Settings, *, role: str, instances: int) -> Engine:
    """The engine of the role's model; instances on a CPU share its cores."""
    cores = len(os.sched_getaffinity(0))
    threads = settings.threads or (max(1, cores // instances) if instances > 1 else 0)
    reference = plain(settings.teacher if role == "teacher" else served(settings.validator))
    return engine_of(reference, settings.model_copy(update={"threads": threads}))


def _triton_code(error: K2DError) -> Any:
    """Triton's code for an error; the message carries the error itself (`k2d.inference.triton_errors`)."""
    codes = pb_utils.TritonError
    if error.status == triton_errors.RequestCancelled.status:
        return codes.CANCELLED
    if error.status in (503, 504):
        return codes.UNAVAILABLE
    return codes.INVALID_ARG if error.status < 500 else codes.INTERNAL
