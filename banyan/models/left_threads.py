"""The threads that a task has left in a process that runs models."""

import sys
import threading
import time
from types import FrameType

DAEMON_SECONDS = 0.1
"""The time that daemon threads have to end."""
LEAVE_SECONDS = 2.0
"""The time that other threads have to end after a task that reported success."""
_POOLS = frozenset({("concurrent.futures.thread", "_worker"), ("distributed.threadpoolexecutor", "_worker")})
_BUSY = ("concurrent.futures.thread", "run")
_SHOWN = 5


class LeftThreads:
    """The threads that a task leaves; earlier threads may stay, and so may idle threads of pools."""

    def __init__(self) -> None:
        self._kept = _threads()

    def left(self) -> list[str]:
        """The names of threads that still run, after some time in which they may end; [] as soon as there are none."""
        begun = time.monotonic()
        pause = 0.0005
        while left := self._left():
            daemon = all(thread is not None and thread.daemon for thread in left.values())
            if time.monotonic() > begun + (DAEMON_SECONDS if daemon else LEAVE_SECONDS):
                break
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        return [thread.name if thread is not None else f"thread {ident}" for ident, thread in left.items()]

    def _left(self) -> dict[int, threading.Thread | None]:
        """The threads that are neither kept nor idle, by their idents, which a new thread may reuse."""
        frames = sys._current_frames()
        if len(frames) == 1:
            return {}
        return {
            ident: thread
            for ident, thread in _threads(frames).items()
            if (ident not in self._kept or self._kept[ident] is not thread) and not _is_idle(frames[ident])
        }


def told(left: list[str]) -> str:
    """The line for a task's standard error about threads that it has left."""
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    names = ", ".join(left[:_SHOWN]) + more
    return f"banyan: the model has left threads behind ({names}); its process is replaced before the next task\n"


def _threads(frames: dict[int, FrameType] | None = None) -> dict[int, threading.Thread | None]:
    """All threads that run Python code by their idents; None for one that the module `threading` does not know."""
    known = {thread.ident: thread for thread in threading.enumerate() if type(thread) is not threading._DummyThread}
    return {ident: known.get(ident) for ident in frames or sys._current_frames()}


def _is_idle(frame: FrameType | None) -> bool:
    """Return whether a thread is one of a pool that waits for work while there is none."""
    waits = False
    while frame is not None:
        place = (frame.f_globals.get("__name__"), frame.f_code.co_name)
        if place == _BUSY:
            return False
        if place in _POOLS:
            found = frame.f_locals
            queue = found.get("work_queue")
            taken = found.get("work_item") or found.get("task")
            waits = taken is None and queue is not None and not queue.qsize()
        frame = frame.f_back
    return waits
