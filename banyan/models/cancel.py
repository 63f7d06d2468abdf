"""`cancel`, the second argument of `model.task`: a flag that costs next to nothing to read, wherever the model runs.

The flag is in a small piece of memory that the host process shares with its supervisor (`cancel_memory`). A process on
the same machine that gets a pickled `Cancel` maps the same memory through the host's `/proc` entry. Any other process
reads a number of its own, which `announce` raises when a message arrives.
"""

import mmap
import os
from collections.abc import MutableSequence
from typing import Any

from banyan.models.cancel_memory import MEMORY_BYTES, SECRET, asked

Numbers = MutableSequence[int] | memoryview


class Cancel:
    """The flag of one task, with the methods of a `dask.distributed.Variable`.

    Cheap to copy and to pickle: pass it on to subtasks, whichever scheduler runs them.
    """

    __slots__ = ("_numbers", "_own", "_place", "_secret", "name")

    def __init__(self, numbers: Numbers, own: int, *, name: str = "", place: str = "", secret: bytes = b"") -> None:
        self._numbers = numbers
        self._own = own
        self._place = place
        self._secret = secret
        self.name = name

    def get(self, timeout: float | str | None = None, **_: Any) -> bool:
        """Return whether the task must stop. Never waits."""
        return self._numbers[0] >= self._own

    def set(self, value: object, timeout: float | str | None = None, **_: Any) -> None:
        """Stop the other subtasks of this task too; ValueError for taking back a cancellation."""
        if value:
            self._numbers[0] = max(self._numbers[0], self._own)
        elif self.get():
            raise ValueError("a cancellation cannot be taken back")

    def delete(self) -> None:
        """Keep the flag, which is deleted with its task."""

    def announcement(self) -> tuple[bytes, int]:
        """The arguments of `announce` with which another process raises this flag."""
        return self._secret, self._own

    def __reduce__(self) -> tuple[Any, ...]:
        return attach, (self._place, self._secret, self._own, self.name)

    def __dask_tokenize__(self) -> tuple[str, bytes, int]:
        return "banyan.cancel", self._secret, self._own

    def __repr__(self) -> str:
        return f"<Cancel {self.name}: {self.get()}>"


class Memory:
    """The host's own mapping of the memory; `descriptor` is shared with the processes that raise flags."""

    def __init__(self, descriptor: int) -> None:
        self._place = f"/proc/{os.getpid()}/fd/{descriptor}"
        self._descriptor = descriptor
        self._numbers, self._secret = _map(descriptor)

    def asked(self, number: int) -> bool:
        """Return whether the task with this number was requested to stop from outside, not by itself alone."""
        return asked(self._descriptor) >= number

    def flag(self, number: int, name: str) -> Cancel:
        """The flag of the host's task with this number."""
        return Cancel(self._numbers, number, name=name, place=self._place, secret=self._secret)


def attach(place: str, secret: bytes, own: int, name: str) -> Cancel:
    """The flag in another process: the same memory where it can be mapped, else the number that messages have set."""
    numbers = _mapped.get(secret)
    if numbers is None:
        numbers = _mapped[secret] = _reach(place, secret) or _announced.setdefault(secret, [0])
    return Cancel(numbers, own, name=name, place=place, secret=secret)


def announce(secret: bytes, number: int) -> None:
    """Raise a flag in this process, which cannot map the memory; for `distributed.Client.run`."""
    numbers = _announced.setdefault(secret, [0])
    numbers[0] = max(numbers[0], number)


_mapped: dict[bytes, Numbers] = {}
_announced: dict[bytes, MutableSequence[int]] = {}


def _reach(place: str, secret: bytes) -> Numbers | None:
    """The memory behind a path, if it exists and is the right one: another machine may have such a path too."""
    if not secret:
        return None
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        numbers, found = _map(descriptor)
    except (OSError, ValueError):
        return None  # another file, too small to be the memory
    finally:
        os.close(descriptor)
    return numbers if found == secret else None


def _map(descriptor: int) -> tuple[Numbers, bytes]:
    shared = mmap.mmap(descriptor, MEMORY_BYTES)
    return memoryview(shared)[:8].cast("Q"), bytes(shared[SECRET])
