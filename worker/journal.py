"""The worker's log: lines on stderr, written by a thread of its own, since a pipe without a reader blocks."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial

from worker.actions import Note
from worker.background import Crew
from worker.events import Event

MOST_WAITING = 10_000
"""The number of lines that wait for a reader; further lines are lost."""
CLOSE_SECONDS = 1.0


class Journal:
    """The log, with its notes in order; `level` is the setting `log.level`."""

    def __init__(self, level: str, tell: Callable[[Event], None]) -> None:
        self._everything = level in ("debug", "info")
        self._crew = Crew("log", tell, most=1)

    def write(self, note: Note) -> None:
        """Write a line soon, if its level is enabled; from any thread."""
        if (note.warning or self._everything) and self._crew.waiting < MOST_WAITING:
            self._crew.do(partial(write_note, note))

    def close(self) -> None:
        """Write the rest, if there is a reader."""
        self._crew.close(CLOSE_SECONDS)


def write_note(note: Note) -> None:
    """Write one line of the log to stderr, if there is one."""
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
    text = " ".join(note.text.split())
    line = f"{stamp} {'WARNING ' if note.warning else ''}{text}\n".encode(errors="backslashreplace")
    with suppress(OSError, ValueError):  # a closed terminal, a full disk: the worker goes on
        if sys.stderr is None:
            return
        descriptor = sys.stderr.fileno()
        while line:  # not by `sys.stderr`, whose lock would keep a program from ending while there is no reader
            line = line[os.write(descriptor, line) :]
