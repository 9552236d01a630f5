"""The model code Triton's Python backend runs: a thin host over the same engine as the FastAPI host.

`services.tritonserver.repository` writes a model.py that imports `TritonPythonModel` from here. This module runs inside the
backend's stub process only, where `triton_python_backend_utils` exists.
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
from k2d.logs import setup
from k2d.schema import ModelInfo
from k2d.settings import Settings, load
from k2d.validators import served
from k2d.whisper.engine import Engine
from k2d.whisper.load import open_engine
from services.inference import triton_process
from services.inference.triton_batch import Answer, Handler, Request
from services.inference.triton_metrics import Metrics

log = structlog.get_logger()


class TritonPythonModel:
    """Teacher or validator in one stub process. Triton calls initialize once, execute for each batch, finalize last."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights and let them hear the golden clips: a model that fails either never becomes ready.

        Raises:
            K2DError: impossible settings, weights that are missing or damaged, a model that hears nothing.
        """
        triton_process.check_numpy(np.__version__, os.environ.get("TRITON_SERVER_VERSION", ""))
        settings = load()
        setup(settings)
        role = args["model_name"]
        triton_process.choose_device(args)
        self._engine: Engine = _open(settings, role=role, instances=triton_process.instances(args))
        info: ModelInfo = self._engine.model
        heard = golden.check(self._engine)
        log.info("golden clips heard", model=info.reference, fingerprint=info.fingerprint, text=heard)
        self._metrics = Metrics(role, info)
        description = wire.describe(info, batch_size=settings.batch_size, golden=heard)
        self._handler = Handler(self._engine, settings.batch_size, description, observe=self._metrics.engine_call)

    def execute(self, requests: list[Any]) -> None:
        """Answer a batch. Answers leave one by one: whoever needs no engine does not wait for those who do."""
        self._handler([self._request(request) for request in requests])

    def finalize(self) -> None:
        """Free the weights."""
        self._engine.close()

    def _request(self, request: Any) -> Request:
        sender = request.get_response_sender()

        def reply(answer: Answer) -> None:
            sender.send(self._response(answer), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

        head = pb_utils.get_input_tensor_by_name(request, "HEAD").as_numpy().reshape(-1)
        samples = pb_utils.get_input_tensor_by_name(request, "SAMPLES").as_numpy().reshape(-1)
        return Request(bytes(head[0]), samples, cancelled=request.is_cancelled, reply=reply)

    def _response(self, answer: Answer) -> Any:
        if isinstance(answer, K2DError):
            self._metrics.refused(answer.code)
            error = pb_utils.TritonError(triton_errors.dump(answer), _triton_code(answer))
            return pb_utils.InferenceResponse(error=error)
        text = json.dumps(answer, ensure_ascii=False).encode()
        return pb_utils.InferenceResponse([pb_utils.Tensor("ANSWER", np.array([[text]], dtype=np.object_))])


def _open(settings: Settings, *, role: str, instances: int) -> Engine:
    """The engine of the role's model; instances on a CPU share the cores instead of fighting for them."""
    cores = len(os.sched_getaffinity(0))
    return open_engine(
        plain(settings.teacher if role == "teacher" else served(settings.validator)),
        engine=settings.engine,
        device=settings.device,
        compute_type=settings.compute_type,
        threads=settings.threads or (max(1, cores // instances) if instances > 1 else 0),
        cache=settings.cache,
        allow_downloads=settings.allow_downloads,
    )


def _triton_code(error: K2DError) -> Any:
    """Triton's code for an error; what it means to a client is in the message (`k2d.inference.triton_errors`)."""
    codes = pb_utils.TritonError
    if error.status == triton_errors.RequestCancelled.status:
        return codes.CANCELLED
    if error.status in (503, 504):
        return codes.UNAVAILABLE
    return codes.INVALID_ARG if error.status < 500 else codes.INTERNAL
