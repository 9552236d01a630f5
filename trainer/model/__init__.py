"""The student, the frozen parts it shares with its teacher, and the loss."""
