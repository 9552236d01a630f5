"""Inference servers: a FastAPI host and a Triton model over the same engine."""
