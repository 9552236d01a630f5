"""The CTC probe: a small network over the teacher's own encoder output that recognises phonemes and cannot loop.

It is trained on the corpus's own labels (`k2d probe`, trainer/probe) and cross-fitted by recording, so that no label is
checked by a network that was trained on it (docs/probe.md). This package has what checking needs, in numpy.
"""

from k2d.validators.probe.network import Probe, dump, fold_of, load
from k2d.validators.probe.validator import ProbeValidator

__all__ = ["Probe", "ProbeValidator", "dump", "fold_of", "load"]
