"""Runs a Triton Inference Server on this machine: its environment, model repository, process and healer.

Named `tritonserver`: a folder called `triton` would shadow the compiler package that torch imports.
"""
