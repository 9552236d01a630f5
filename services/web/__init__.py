"""What every HTTP host has: one form of error document, limits on requests, a token, request metrics."""
