"""Starts services on one machine: Redis, or the whole stack."""
