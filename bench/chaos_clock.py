"""The clock of a chaos run's processes: it can step, and a worker can have another one."""

import subprocess
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("chaos_clock.c")


class Clock:
    """A wall clock that processes with `variables` see; their monotonic clocks stay right.

    clock = Clock(Path("clocks"))
    process = subprocess.Popen(command, env=os.environ | clock.variables)
    clock.step(-7200)

    `works` is False where there is no C compiler, or no LD_PRELOAD.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._library = folder / "clock.so"
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE)]
        try:
            built = subprocess.run(command, capture_output=True, check=False).returncode == 0
            self.works = built and self._shows()
        except OSError:
            self.works = False
        self.step(0)

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of a process whose clock steps with `step`."""
        return self._variables(self._folder / "now") if self.works else {}

    def wrong(self, by_s: int) -> dict[str, str]:
        """Environment variables of a process whose clock is wrong by so many seconds."""
        path = self._folder / f"{by_s:+d}"
        path.write_text(f"{by_s:+d}")
        return self._variables(path)

    def step(self, to_s: int) -> None:
        """Let the clock be wrong by so many seconds from now on."""
        (self._folder / "now").write_text(f"{to_s:+d}")

    def _variables(self, path: Path) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(path)}

    def _shows(self) -> bool:
        """Whether a process with the library sees another time."""
        date = subprocess.run(["date", "+%s"], env=self.wrong(-(10**9)), capture_output=True, text=True, check=True)
        return int(date.stdout) < 10**9
