"""A client for apps without a server: it calls them by an address of this machine, as Host is checked."""

from typing import Any

from fastapi.testclient import TestClient


class LocalClient(TestClient):
    """FastAPI's test client at http://127.0.0.1."""

    def __init__(self, app: Any, **arguments: Any) -> None:
        super().__init__(app, **{"base_url": "http://127.0.0.1", **arguments})
