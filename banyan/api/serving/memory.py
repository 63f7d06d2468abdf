"""Giving memory back to the system after a request that took much of it."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from functools import cache


@cache
def _trim() -> Callable[[int], int] | None:
    """`malloc_trim` of glibc, where there is one."""
    with suppress(OSError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return trim
    return None


LARGE_BYTES = 1 << 20
"""After an answer that is longer, or a body that takes more, memory is given back."""


def give_memory_back() -> None:
    """Hand the pages back that hold nothing: malloc itself keeps what lies below anything that is still in use."""
    if (trim := _trim()) is not None:
        trim(0)
