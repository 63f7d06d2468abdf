"""What one task uses in a host process that runs many."""

import os
import resource
from collections.abc import Collection

_TICKS = os.sysconf("SC_CLK_TCK")


class Usage:
    """Memory and CPU since it was made: of this process, of the `others` (process ids), of children that have ended."""

    def __init__(self, others: Collection[int]) -> None:
        self._others = others
        self._exact = all([_reset_peak("self"), *(_reset_peak(pid) for pid in others)])
        self._children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._cpu_seconds = self._cpu()

    def end(self) -> tuple[int, bool, float]:
        """The peak of memory in bytes, whether it is exact, and the seconds of CPU.

        It is not exact once children have ended: the kernel tells the largest of all that this process has ever had.
        """
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = _peak("self") + sum(_peak(pid) for pid in self._others)
        if ended.ru_maxrss > self._children.ru_maxrss:
            peak = max(peak, ended.ru_maxrss * 1024)
        alone = ended.ru_utime + ended.ru_stime == self._children.ru_utime + self._children.ru_stime
        return peak, self._exact and alone, max(0.0, self._cpu() - self._cpu_seconds)

    def _cpu(self) -> float:
        return cpu_seconds() + sum(_ticks(pid) for pid in self._others) / _TICKS


def cpu_seconds() -> float:
    """The CPU time of this process so far, and of its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _reset_peak(process: int | str) -> bool:
    """Let the kernel begin anew with the largest resident size of a process; whether it does."""
    try:
        with open(f"/proc/{process}/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _peak(process: int | str) -> int:
    """The largest resident size of a process in bytes, since it was reset; 0 if it is gone."""
    try:
        with open(f"/proc/{process}/status", "rb") as file:
            for line in file:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def _ticks(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0  # it is gone
    return int(fields[11]) + int(fields[12])
