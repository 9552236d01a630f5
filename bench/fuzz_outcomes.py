"""What bench/fuzz.py counts, and where it saves what failed."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


def is_not_ready(status: int, content: bytes) -> bool:
    """Whether an answer is that of an inference server without a model, as `--model none` starts it."""
    return status == 503 and b'"not_ready"' in content


@dataclass
class Outcomes:
    """Counts of one part of a run. `faults` are not allowed; `allowed` are told beside."""

    part: str
    folder: Path  # failing inputs are saved here
    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    allowed: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def fault(self, kind: str, data: bytes, *, suffix: str = ".txt") -> None:
        """Count a fault; the first input of each kind is saved."""
        self.faults[kind] += 1
        if self.faults[kind] == 1:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = "".join(c if c.isalnum() else "-" for c in f"{self.part}-{len(self.faults)}-{kind}"[:80])
            (self.folder / f"{name}{suffix}").write_bytes(data)

    def table(self) -> str:
        """Lines for people."""
        server_errors = sum(count for status, count in self.statuses.items() if status.startswith("5"))
        server_errors -= self.allowed["not ready"]
        lines = [f"{self.part:24} {self.sent:8,} {server_errors:6,} {self.faults.total():8,}"]
        for title, counts in (("answers", self.statuses), ("allowed", self.allowed), ("FAULT", self.faults)):
            counts = +counts
            if counts and title != "FAULT":
                lines.append(f"  {title}: " + ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())))
            elif title == "FAULT":
                lines += [f"  FAULT × {count:,}: {kind}" for kind, count in counts.most_common()]
        return "\n".join(lines)
