"""Evidence: all that speaks for or against a label, from what its validators said. Pure.

Labels and hypotheses are read together (`k2d.text.reading`) and aligned by sound; what the alignments count becomes the
evidence of each segment and of the chunk. The paper's distances come out of the same alignments.
"""

from k2d.filtering.evidence.label import Said
from k2d.filtering.evidence.weigh import Weighed, mean_logprob, weigh, weigh_many

__all__ = ["Said", "Weighed", "mean_logprob", "weigh", "weigh_many"]
