"""The inference server of the validator's model."""
