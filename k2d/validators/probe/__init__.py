"""The CTC probe: a small network on the teacher's encoder output that recognises phonemes, and cannot loop.

It is trained on the corpus's own labels (`k2d probe`, trainer/probe) and cross-fitted by recording, so that no label is
validated by a network that was trained on it (docs/probe.md). This package has the inference part, in numpy.
"""

from k2d.validators.probe.network import Probe, dump, fold_of, load
from k2d.validators.probe.validator import ProbeValidator

__all__ = ["Probe", "ProbeValidator", "dump", "fold_of", "load"]
