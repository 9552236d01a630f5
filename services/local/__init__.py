"""What starts services on one machine: Redis, and the whole stack."""
