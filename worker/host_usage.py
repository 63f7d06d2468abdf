"""What one task uses in a host process that runs many."""

import os
import resource
from collections.abc import Collection

from worker.offspring import cpu_ticks, peak_bytes, reset_peak

_TICKS = os.sysconf("SC_CLK_TCK")


class Usage:
    """Memory and CPU since it was made: of this process, of the `others` (process ids), of children that have ended."""

    def __init__(self, others: Collection[int]) -> None:
        self._others = others
        self._exact = all([reset_peak("self"), *(reset_peak(pid) for pid in others)])
        self._children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._cpu_seconds = self._cpu()

    def end(self) -> tuple[int, bool, float]:
        """The peak of memory in bytes, whether it is exact, and the seconds of CPU.

        It is not exact once children have ended: the kernel tells the largest of all that this process has ever had.
        """
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = peak_bytes("self") + sum(peak_bytes(pid) for pid in self._others)
        if ended.ru_maxrss > self._children.ru_maxrss:
            peak = max(peak, ended.ru_maxrss * 1024)
        alone = ended.ru_utime + ended.ru_stime == self._children.ru_utime + self._children.ru_stime
        return peak, self._exact and alone, max(0.0, self._cpu() - self._cpu_seconds)

    def _cpu(self) -> float:
        return cpu_seconds() + sum(cpu_ticks(pid) for pid in self._others) / _TICKS


def cpu_seconds() -> float:
    """The CPU time of this process so far, and of its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
