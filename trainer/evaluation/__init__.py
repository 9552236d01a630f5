"""How well students and their teacher hear: sets, hearing, error rates with bands, speed and size, reports.

`evaluate.evaluate` does all of it; `metrics` and `bootstrap` are pure and need neither a model nor torch.
"""
