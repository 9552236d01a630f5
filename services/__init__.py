"""The labeling API and its workers, inference servers, and what starts them on one machine."""
