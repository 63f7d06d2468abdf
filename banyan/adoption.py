"""Orphans of the parts of `banyan up`: it inherits them instead of `init`, so that it can end them."""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from banyan import child

_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.02
_LAST_SECONDS = 0.5
_KILL_SECONDS = 2.0


class Orphans:
    """The processes that this one has inherited since, or will: all its children except those it started itself."""

    def __init__(self, known: set[int]) -> None:
        self._known = known

    def end(self, *, seconds: float = _LAST_SECONDS) -> None:
        """Let the orphans end by themselves for some seconds, then kill them with all their descendants."""
        deadline = time.monotonic() + seconds
        while (orphans := self._reaped()) and time.monotonic() < deadline + _KILL_SECONDS:
            if time.monotonic() > deadline:
                for orphan in orphans:
                    _kill_tree(orphan)
            time.sleep(_POLL_SECONDS)

    def _reaped(self) -> list[psutil.Process]:
        """Reap the dead ones; return those that still run."""
        others = self._known | child.looked_after()
        children = [each for each in psutil.Process().children() if each.pid not in others]
        for each in children:
            with suppress(ChildProcessError):
                os.waitpid(each.pid, os.WNOHANG)
        return [each for each in children if _runs(each)]


@contextmanager
def adopting() -> Iterator[Orphans]:
    """Inherit the orphans among our descendants (Linux); none is left after the block."""
    prctl = ctypes.CDLL(None).prctl
    orphans = Orphans({each.pid for each in psutil.Process().children()})
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield orphans
    finally:
        orphans.end()
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill_tree(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                each.kill()
