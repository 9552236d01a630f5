"""The `k2d` commands that start services: up, serve, triton, demo, doctor."""
