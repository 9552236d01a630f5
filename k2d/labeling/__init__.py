"""Labels and validates recordings: one (`recording`), a group of them (`group`), and the batch of a request."""
