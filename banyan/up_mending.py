"""Restarts of parts of `banyan up` that have died, up to a limit; pauses while their disk is full."""

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from banyan.errors import Unavailable

DEATHS = 5
"""The number of deaths of one part that are too many .."""
WINDOW_SECONDS = 60.0
""".. within this time."""
_PAUSES_SECONDS = (0.0, 0.25, 0.5, 1.0)
"""The pauses after the first, second, .. death within the window."""
_LOOK_SECONDS = 0.1
IN_ORDER_SECONDS = 15.0
"""The time that MongoDB has to write its data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The end of a process."""

    code: int
    """Its exit code, negative for a signal."""
    reason: str
    """The reason, in a few words on one line."""


class Restartable(Protocol):
    """A part that is started again when it has died."""

    name: str

    def death(self) -> Death | None: ...

    def start_again(self) -> None: ...

    def stop(self, seconds: float | None = None) -> None: ...

    def last_words(self) -> str: ...


class DataRoom(Protocol):
    """The room that the parts need on the disk of their data."""

    def shortage(self, now: float) -> str | None: ...

    def was_short(self, now: float) -> bool: ...

    def complaint(self) -> str: ...

    def ample(self) -> bool: ...

    def keep_reserve(self) -> None: ...

    def give_reserve(self) -> None: ...


@dataclass(slots=True)
class Deaths:
    """The deaths of one part within the last minute."""

    _times: deque[float] = field(default_factory=deque)

    def add(self, now: float) -> float | None:
        """Count one; return the seconds until the part is started again, or None if it has died too often."""
        self._times.append(now)
        while self._times[0] <= now - WINDOW_SECONDS:
            self._times.popleft()
        count = len(self._times)
        return None if count >= DEATHS else _PAUSES_SECONDS[count - 1]


class Mender:
    """The supervisor of parts: each that has died is started again, and the reason printed in one line.

    A worker that has left with exit code 0, because of its settings or an administrator, is followed by another one,
    and that is no death. Unavailable when a part has died too often. While there is no `room`, the one part that aborts
    without any is stopped in order, and nothing is started again: that is no death, either.
    """

    def __init__(self, parts: Iterable[Restartable], tell: Callable[[str], None], room: DataRoom | None = None) -> None:
        self._parts = tuple(parts)
        self._tell = tell
        self._room = room
        self._waiting = False
        self._deaths = {part.name: Deaths() for part in self._parts}
        self._due: dict[str, float] = {}

    def watch(self, meanwhile: Callable[[], object]) -> NoReturn:
        """Check the parts for ever; `meanwhile` is called between two checks."""
        while True:
            self.look_at_room(time.monotonic())
            for part in self._parts:
                self.look(part, time.monotonic())
            meanwhile()
            time.sleep(_LOOK_SECONDS)

    def look_at_room(self, now: float) -> None:
        """Stop MongoDB in order while there is too little room for it; start the missing parts once there is enough."""
        room = self._room
        if room is None:
            return
        if not self._waiting:
            shortage = room.shortage(now)
            if shortage is not None:
                self._wait_for_room(shortage)
        elif room.ample():
            self._waiting = False
            self._tell("there is room on the disk again: everything goes on")
            room.keep_reserve()
            self._due = {part.name: now for part in self._parts if part.death() is not None}

    def _wait_for_room(self, shortage: str) -> None:
        self._waiting = True
        if self._room is not None:
            self._room.give_reserve()
        self._tell(shortage)
        for part in self._parts:
            if part.name == "mongod" and part.death() is None:
                part.stop(IN_ORDER_SECONDS)

    def look(self, part: Restartable, now: float) -> None:
        """Start the part again if it is dead and that is due."""
        if self._waiting:
            return
        if part.name not in self._due:
            if (death := part.death()) is None:
                return
            if self._lacked_room(now):
                return
            self._schedule(part, death, now)
        if now < self._due[part.name]:
            return
        try:
            part.start_again()
        except (OSError, subprocess.SubprocessError) as error:
            if self._lacked_room(now):
                return
            self._schedule(part, Death(code=1, reason=f"it could not be started: {error}"), now)
        else:
            del self._due[part.name]

    def _lacked_room(self, now: float) -> bool:
        """Return whether a lack of room may have ended a part or prevents its start; if so, dead parts wait for it."""
        lacked = self._room is not None and self._room.was_short(now) and not self._room.ample()
        if lacked and self._room is not None:
            self._wait_for_room(self._room.complaint())
        return lacked

    def _schedule(self, part: Restartable, death: Death, now: float) -> None:
        """Print the end of the part, and schedule its next start."""
        if part.name == "worker" and death.code == 0:
            self._due[part.name] = now
            self._tell("the worker has left (exit code 0); another one is started")
            return
        pause = self._deaths[part.name].add(now)
        if pause is None:
            raise Unavailable(
                f"the {part.name} ended {DEATHS} times within {WINDOW_SECONDS:g} s, the last time by {death.reason}; "
                f"everything is stopped{part.last_words()}"
            )
        self._due[part.name] = now + pause
        self._tell(f"the {part.name} ended ({death.reason}) and is started again")


def say(sentence: str) -> None:
    """Write one line to stderr, if there is a reader."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(f"banyan up: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
