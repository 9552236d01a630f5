"""One recording's walk, a group of them, and a batch as it was asked for."""
