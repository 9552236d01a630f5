"""Inference servers: one engine behind two hosts, FastAPI and Triton."""
