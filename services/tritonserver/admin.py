"""What the launcher asks its own Triton over HTTP: is it ready, load this model, unload it.

One connection a call: an idle one that is kept alive holds Triton's exit until its time-out.
"""

import secrets
from dataclasses import dataclass, field

import httpx

from services.tritonserver.runtime import TritonFailed

KEY = "k2d-admin"
# Loading a model may carry the model's code along: whoever may do that may run anything. Only the launcher may.
RESTRICTED = "model-repository,shared-memory,trace,logging"
QUICK_S = 5.0


@dataclass(frozen=True, slots=True)
class Admin:
    """The management side of one server at `url`, with the secret that only its launcher knows."""

    url: str
    secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def arguments(self) -> list[str]:
        """The server's options that keep everybody else out."""
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
            TritonFailed: it is not, and why.
        """
        self._manage(model, "load", timeout_s=timeout_s)

    def unload(self, model: str) -> None:
        """Begin to unload a model; what it is working on ends first.

        Raises:
            TritonFailed: the server does not do it.
        """
        self._manage(model, "unload", timeout_s=QUICK_S)

    def _manage(self, model: str, act: str, *, timeout_s: float) -> None:
        try:
            response = self._ask("POST", f"/v2/repository/models/{model}/{act}", timeout_s=timeout_s)
        except httpx.HTTPError as error:
            raise TritonFailed(f"Triton cannot be told to {act} {model}: {error!r}") from error
        if not response.is_success:
            raise TritonFailed(f"Triton could not {act} {model}: {response.text[:500]}")

    def _ask(self, method: str, path: str, *, timeout_s: float) -> httpx.Response:
        headers = {"Connection": "close", KEY: self.secret}
        with httpx.Client(base_url=self.url, trust_env=False, timeout=timeout_s) as client:
            return client.request(method, path, headers=headers)
