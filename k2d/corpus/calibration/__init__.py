"""Calibrates a policy: from a few hundred reviewed segments to an α with a proven bound on the label error.

docs/calibration.md describes the method. The steps: `review.review` draws segments, a person reviews them in the file
written by `reviews.write`, and `calibrate.calibrate` fits the weights and proves α.
"""
