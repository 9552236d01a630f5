"""From a few hundred reviewed segments to a policy with a proven label error (docs/calibration.md)."""
