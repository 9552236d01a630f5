"""Who does the work: a labeling API over HTTP, or this process. One interface, typed results."""
