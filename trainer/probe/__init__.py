"""Training of the CTC probe (k2d.validators.probe): examples from label shards, the network, cross-fitting."""
