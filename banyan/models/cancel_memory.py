"""The memory behind `cancel`: made and written by whoever starts a host, read by the host.

It counts: it holds the number of the last task of the host that is to stop, so one write raises the flag of one task
(and of those before it, which are over). A model can raise its flag itself; a second number says which task was asked
to stop from outside. Imported by the worker's supervisor, which must stay small.
"""

import os
import sys

MEMORY_BYTES = 64
"""Eight bytes for the number, sixteen that no other memory has, by which it is known again, eight for the last task
that was asked to stop, and room."""
SECRET = slice(8, 24)
ASKED = slice(24, 32)


def create() -> int:
    """The descriptor of fresh memory, with no flag raised in it; closed on exec."""
    descriptor = os.memfd_create("banyan-cancel")
    os.pwrite(descriptor, bytes(SECRET.start) + os.urandom(16) + bytes(MEMORY_BYTES - SECRET.stop), 0)
    return descriptor


def raise_flag(descriptor: int, number: int) -> None:
    """Tell the host's task with this number, and all before it, to stop."""
    os.pwrite(descriptor, number.to_bytes(8, sys.byteorder), ASKED.start)
    os.pwrite(descriptor, number.to_bytes(8, sys.byteorder), 0)


def asked(descriptor: int) -> int:
    """The number of the last task that was told to stop."""
    return int.from_bytes(os.pread(descriptor, ASKED.stop - ASKED.start, ASKED.start), sys.byteorder)
