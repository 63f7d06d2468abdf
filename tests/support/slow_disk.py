"""A disk that takes its time, or does not answer at all: see `slow_disk.c`."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SlowDisk:
    """Holds up the programs that run with its `variables`, as far as a path has `name` in it."""

    library: Path
    gate: Path
    name: str
    microseconds: int = 0

    @property
    def variables(self) -> dict[str, str]:
        """The environment of such a program."""
        return {
            "LD_PRELOAD": str(self.library),
            "SLOW_NAME": self.name,
            "SLOW_GATE": str(self.gate),
            "SLOW_MICROSECONDS": str(self.microseconds),
        }

    def stop(self) -> None:
        """Do not answer any more."""
        self.gate.touch()

    def go_on(self) -> None:
        """Answer again, also those who wait."""
        self.gate.unlink()


def slow_disk(directory: Path, name: str, *, microseconds: int = 0) -> SlowDisk:
    """Compile one; it answers until it is stopped."""
    library = directory / "slow_disk.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return SlowDisk(library, directory / "gate", name, microseconds)
