"""From rows of a frozen dataset to the micro-batches of each training step."""
