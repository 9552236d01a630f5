"""The launcher's calls to its own Triton over HTTP: whether a model is ready, load it, unload it.

One connection a call: an idle connection that is kept alive delays Triton's exit until its time-out.
"""

import secrets
from dataclasses import dataclass, field
from typing import Final

import httpx

from services.tritonserver.runtime import TritonFailed

KEY: Final = "k2d-admin"
# A request to load a model may carry the model's code: whoever may send it can run anything. Only the launcher may.
RESTRICTED: Final = "model-repository,shared-memory,trace,logging"
QUICK_S: Final = 5.0  # for calls that do not wait for a model


@dataclass(frozen=True, slots=True)
class Admin:
    """The management API of one server at `url`, with the secret that only its launcher knows.

    admin = Admin("http://127.0.0.1:8000")
    admin.load("teacher", timeout_s=60)
    """

    url: str
    secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def arguments(self) -> list[str]:
        """The server's options that refuse these calls without the secret."""
        return [
            f"--http-restricted-api={RESTRICTED}:{KEY}={self.secret}",
            f"--grpc-restricted-protocol={RESTRICTED}:{KEY}={self.secret}",
        ]

    def is_ready(self, model: str) -> bool:
        try:
            return self._ask("GET", f"/v2/models/{model}/ready", timeout_s=QUICK_S).is_success
        except httpx.HTTPError:
            return False

    def load(self, model: str, *, timeout_s: float) -> None:
        """Load a model; returns when it is ready.

        Raises:
            TritonFailed: it cannot be loaded; the message says why.
        """
        self._manage(model, "load", timeout_s=timeout_s)

    def unload(self, model: str) -> None:
        """Begin to unload a model; it finishes its current batch first.

        Raises:
            TritonFailed: the server refuses.
        """
        self._manage(model, "unload", timeout_s=QUICK_S)

    def _manage(self, model: str, act: str, *, timeout_s: float) -> None:
        try:
            response = self._ask("POST", f"/v2/repository/models/{model}/{act}", timeout_s=timeout_s)
        except httpx.HTTPError as error:
            raise TritonFailed(f"Triton does not answer a request to {act} {model}: {error!r}") from error
        if not response.is_success:
            raise TritonFailed(f"Triton could not {act} {model}: {response.text[:500]}")

    def _ask(self, method: str, path: str, *, timeout_s: float) -> httpx.Response:
        headers = {"Connection": "close", KEY: self.secret}
        with httpx.Client(base_url=self.url, trust_env=False, timeout=timeout_s) as client:
            return client.request(method, path, headers=headers)
