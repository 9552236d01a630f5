"""Distances between transcripts, evidence about labels, and policies that decide which labels are kept. No I/O."""
