"""The `k2d` commands that start services: up, serve, triton, demo, doctor. Importing this registers them."""

from services.commands import demo, doctor, serve, triton, up

__all__ = ["demo", "doctor", "serve", "triton", "up"]
