"""Datasets: what a policy keeps of some batches, frozen as training shards (freeze), and its exports (export)."""
