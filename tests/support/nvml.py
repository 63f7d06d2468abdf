"""A stand-in for NVML, the library of NVIDIA's driver, whose answers a test chooses: see `nvml.c`."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GPU_IS_LOST = 15
NOT_SUPPORTED = 3
UNKNOWN = 999


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU, or a part of the GPU `parent`; codes other than 0 are errors."""

    uuid: str
    memory_bytes: int = 8 << 30
    handle: int = 0
    memory: int = 0
    processes: int = 0
    parent: int = -1

    def line(self) -> str:
        """As the stand-in reads it."""
        return f"{self.uuid} {self.memory_bytes} {self.handle} {self.memory} {self.processes} {self.parent}"


class Nvml:
    """Compiled into a directory; `answers` changes what it says, also to programs that use it already."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        source, library = Path(__file__).with_suffix(".c"), directory / "libnvidia-ml.so.1"
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a program that is to find it."""
        return {"LD_LIBRARY_PATH": str(self._directory), "NVML_FILE": str(self._directory / "nvml.txt")}

    def answers(self, *devices: Device, init: int = 0, count: int = 0, hang: bool = False) -> None:
        """From now on there are these."""
        unfinished = self._directory / "nvml.new"
        lines: Sequence[str] = [f"{init} {count} {int(hang)}", *(device.line() for device in devices)]
        unfinished.write_text("\n".join(lines) + "\n")
        unfinished.replace(self._directory / "nvml.txt")
