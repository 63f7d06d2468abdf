"""Release of memory to the system after a request that took much of it."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from functools import cache


@cache
def _trim() -> Callable[[int], int] | None:
    """The function `malloc_trim` of glibc, if available."""
    with suppress(OSError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return trim
    return None


LARGE_BYTES = 1 << 20
"""The size of a response, or of the memory for a body, above which memory is released."""


def give_memory_back() -> None:
    """Return free pages to the system: malloc itself keeps those below any page in use."""
    if (trim := _trim()) is not None:
        trim(0)
