"""The labeling API, its queue, the jobs in it, and the worker that runs them."""
