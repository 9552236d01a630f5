"""Training of the CTC probe (k2d.probe): examples from label shards, the network, cross-fitting."""
