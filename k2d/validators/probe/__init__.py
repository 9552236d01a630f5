"""The CTC probe: a small network over the teacher's own encoder output that hears phonemes and cannot loop.

It is trained on the corpus's own labels (`k2d probe`, trainer/probe) and cross-fitted by recording, so that no label is
judged by a network that saw it. Source: method.md, section 7. Here is what judging needs, in numpy.
"""

from k2d.validators.probe.network import Probe, dump, fold_of, load
from k2d.validators.probe.validator import ProbeListener, open_probe

__all__ = ["Probe", "ProbeListener", "dump", "fold_of", "load", "open_probe"]
