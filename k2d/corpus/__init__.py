"""Questions about many chunks: the index, ledgers, curves, the audit, calibration. Maps over parts, then sums."""
