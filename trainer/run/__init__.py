"""A training run: its loop, its step, its checkpoints, its report."""
