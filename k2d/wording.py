"""Wording that messages of all rooms share."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 chunk", "2 chunks", "1,024 chunks"; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
