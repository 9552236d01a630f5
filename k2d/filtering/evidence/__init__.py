"""Evidence: all that speaks for or against a label, from its validators' hypotheses. Pure.

Labels and hypotheses are read together (`k2d.text.reading`) and aligned by sound; what the alignments count becomes the
evidence of each segment and of the chunk. The paper's distances come out of the same alignments.

To add a feature: a field of `k2d.schema.Evidence` (and its FACTS_VERSION), and its column in weigh.py.
"""

from k2d.filtering.evidence.texts import ChunkTexts
from k2d.filtering.evidence.weigh import ChunkEvidence, mean_logprob, weigh, weigh_many

__all__ = ["ChunkEvidence", "ChunkTexts", "mean_logprob", "weigh", "weigh_many"]
