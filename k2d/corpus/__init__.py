"""Questions about whole batches: index, ledgers, curves over α, audit, calibration, comparison of validators.

A batch is read part by part (1,024 recordings); results are computed for each part and added up.
"""
