"""The training loop, its checkpoints, its report."""
