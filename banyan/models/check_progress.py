"""The progress of a process with the tasks that it checks, in memory that it shares with the server.

A message for each task would wake the server as often. After the process hangs or is dead, this shows which task was
its last.
"""

import mmap
import os
import struct
import time

_BEGUN = struct.Struct("@dQ")
"""The start time of the newest task, and its number: in this order, so that no reader sees a number with an older
time."""


def create() -> int:
    """The descriptor of new memory, closed on exec."""
    descriptor = os.memfd_create("banyan-check")
    os.pwrite(descriptor, _BEGUN.pack(0.0, 0), 0)
    return descriptor


def read(descriptor: int) -> tuple[float, int]:
    """The start time of the newest task, on the machine's monotonic clock, and its number; 0 if there was none."""
    begun, number = _BEGUN.unpack(os.pread(descriptor, _BEGUN.size, 0))
    return float(begun), int(number)


class Progress:
    """The process's own mapping of the memory; it closes the descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _BEGUN.size)
        os.close(descriptor)

    def begin(self, number: int) -> None:
        """Record that the task with this number begins now."""
        _BEGUN.pack_into(self._memory, 0, time.monotonic(), number)
