"""The memory behind `cancel`: created and written by the process that starts a host, read by the host.

It holds the number of the last task of the host that must stop, so one write raises the flag of one task (and of those
before it, which are over). A model can raise its flag itself; a second number is that of the last task that was
requested to stop from outside. Imported by the worker's supervisor, which must stay small.
"""

import os
import sys

MEMORY_BYTES = 64
"""Eight bytes for the number, a secret of sixteen that identifies the memory, eight for the last task that was
requested to stop, and some room."""
SECRET = slice(8, 24)
ASKED = slice(24, 32)


def create() -> int:
    """The descriptor of new memory, with no flag raised in it; closed on exec."""
    descriptor = os.memfd_create("banyan-cancel")
    os.pwrite(descriptor, bytes(SECRET.start) + os.urandom(16) + bytes(MEMORY_BYTES - SECRET.stop), 0)
    return descriptor


def raise_flag(descriptor: int, number: int) -> None:
    """Request the host's task with this number, and all before it, to stop."""
    os.pwrite(descriptor, number.to_bytes(8, sys.byteorder), ASKED.start)
    os.pwrite(descriptor, number.to_bytes(8, sys.byteorder), 0)


def asked(descriptor: int) -> int:
    """The number of the last task that was requested to stop."""
    return int.from_bytes(os.pread(descriptor, ASKED.stop - ASKED.start, ASKED.start), sys.byteorder)
