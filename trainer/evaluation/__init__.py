"""How well students and their teacher transcribe: sets, transcripts, error rates with bands, speed and size, reports.

`evaluate.evaluate` does all of it; `error_rates` and `bootstrap` are pure and need neither a model nor torch.
"""
