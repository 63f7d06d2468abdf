"""Points at which a test can stop this process dead: one after each write, named after who writes.

A point is `queue.report._end>ExecutionStore.end`: the function of a use case, and the method of the store that it
called. With `:2` behind it, it is the second such write. The names are not kept anywhere: they are read from the stack
when a write has been done, so a new write has a point by itself. Nothing of this exists in a server that was not told
to stop: no part of this is in the product, which takes listeners of the driver from whoever starts it.
"""

import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

_WRITES = frozenset({"insert", "update", "delete", "findAndModify", "commitTransaction"})
_BESIDE = "signals"
"""A collection of which nothing depends on: what is in it wakes those who wait."""
_INLINE = re.compile(r"\.<locals>\.<(listcomp|dictcomp|setcomp|genexpr)>")
"""Expressions that have a frame of their own in some versions of Python only."""
_STORAGE, _PACKAGE = "banyan.storage.", "banyan."


Passed = Callable[[str, FrameType | None], None]
"""Hears the name of a point, and the frame from which it was read."""


class Points(CommandListener):
    """Calls `passed` at each point, in the thread that has just written, before that goes on.

    What is written within a transaction is no point, since nobody sees it: its commit is one. `within` hears of it.
    """

    def __init__(self, passed: Passed, within: Passed = lambda name, frame: None) -> None:
        self._passed = passed
        self._within = within
        self._here = threading.local()

    def started(self, event: CommandStartedEvent) -> None:
        """A command is sent: note whether it writes anything, and whether that lasts."""
        command: Mapping[str, Any] = event.command
        name = event.command_name
        self._here.writes = name in _WRITES and command[name] != _BESIDE
        self._here.lasts = name == "commitTransaction" or command.get("autocommit") is not False

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """It was done."""
        if self._here.writes:
            frame = _innermost(sys._getframe(1))
            (self._passed if self._here.lasts else self._within)(name_of_point(frame), frame)

    def failed(self, event: CommandFailedEvent) -> None:
        """It was not."""


def _innermost(frame: FrameType | None) -> FrameType | None:
    """The function of the storage that has written."""
    while frame is not None and not _module(frame).startswith(_STORAGE):
        frame = frame.f_back
    return frame


def name_of_point(frame: FrameType | None) -> str:
    """The name of a write, read from the stack above it.

    It names the first function of ours outside the storage, and the last one in it.
    """
    store = frame
    while frame is not None:
        if _module(frame).startswith(_STORAGE):
            store = frame
        elif _module(frame).startswith(_PACKAGE):
            break
        frame = frame.f_back
    return f"{_place(frame)}>{store.f_code.co_qualname if store else 'unknown'}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return "start"
    return f"{_module(frame).removeprefix(_PACKAGE)}.{_INLINE.sub('', frame.f_code.co_qualname)}"


def stop_at(point: str) -> Passed:
    """A listener that ends this process by SIGKILL when it passes `point` (`:N` behind it: the Nth time)."""
    name, _, number = point.partition(":")
    passed: Counter[str] = Counter()
    lock = threading.Lock()

    def stop(passing: str, frame: FrameType | None) -> None:
        with lock:
            passed[passing] += 1
        if passing == name and passed[name] == int(number or 1):
            os.kill(os.getpid(), signal.SIGKILL)

    return stop
