"""From rows of a frozen dataset to training batches."""
