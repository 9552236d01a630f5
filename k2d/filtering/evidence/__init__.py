"""Computes the evidence for and against a label from its validators' hypotheses.

Labels and hypotheses are read together (`k2d.text.reading`) and aligned by sound. The edits become the evidence of each
segment and of the chunk (`k2d.schema.Evidence`); the paper's distances come from the same alignments.

To add a feature: add a field to `k2d.schema.Evidence`, raise FACTS_VERSION there, and compute its column in weigh.py.
"""

from k2d.filtering.evidence.texts import ChunkTexts
from k2d.filtering.evidence.weigh import ChunkEvidence, mean_logprob, weigh, weigh_many

__all__ = ["ChunkEvidence", "ChunkTexts", "mean_logprob", "weigh", "weigh_many"]
