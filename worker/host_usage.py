"""The memory and CPU of one task in a host process that runs many."""

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
        self._own, self._children, self._ticks = self._used()

    def end(self) -> tuple[int, bool, float]:
        """Return the peak of memory in bytes, whether it is exact, and the seconds of CPU.

        It is not exact once children have ended: the kernel reports the largest that this process has ever had.
        """
        own, children, ticks = self._used()
        peak = peak_bytes("self") + sum(peak_bytes(pid) for pid in self._others)
        if children.ru_maxrss > self._children.ru_maxrss:
            peak = max(peak, children.ru_maxrss * 1024)
        ended = _seconds(children) - _seconds(self._children)
        seconds = _seconds(own) - _seconds(self._own) + ended + (ticks - self._ticks) / _TICKS
        return peak, self._exact and not ended, max(0.0, seconds)

    def _used(self) -> tuple[resource.struct_rusage, resource.struct_rusage, int]:
        """Return the use by this process, by its children that have ended, and by the others in ticks."""
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return own, children, sum(cpu_ticks(pid) for pid in self._others)


def cpu_seconds() -> float:
    """Return the CPU time of this process so far, and of its children that have ended."""
    return _seconds(resource.getrusage(resource.RUSAGE_SELF)) + _seconds(resource.getrusage(resource.RUSAGE_CHILDREN))


def _seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime
