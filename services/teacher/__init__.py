"""The inference server of the teacher's model."""
