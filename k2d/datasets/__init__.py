"""Datasets: what a policy keeps of some batches, written as training shards (freeze) and exported to other formats."""
