"""One host process as the supervisor sees it: its end of the socket, its memory for `cancel`, the job that it has.

Imported by the supervisor, which must stay small.
"""

import os
import time

from banyan import frames
from banyan.models import cancel_memory
from worker.offspring import descendants, kill, signal_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from typing import Any

    from worker.job import Job

SIGKILL = 9
SIGSTOP = 19
READABLE, WRITABLE = 1, 4
"""As `select.poll` calls them."""


SAYS = {
    "ready": (int,),
    "unfit": (str, str),
    "broken": (str,),
    "ended": (int, dict, int, bool, (int, float), bool),
}
"""What a host may say, and of which types."""


def _sound(said: "Any") -> "Any":
    """What it said, if it is something that a host may say; else Nonsense."""
    kind, *values = said
    types = SAYS.get(kind) if isinstance(kind, str) else None
    if types is None or len(values) != len(types):
        raise frames.Nonsense("a host does not say that")
    for value, wanted in zip(values, types, strict=True):
        if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
            raise frames.Nonsense("a host does not say it so")
        if isinstance(value, (int, float)) and not abs(value) < 1 << 62:
            raise frames.Nonsense("no number that can be")
    if kind == "ended" and not all(isinstance(text, str) for text in values[1].values()):
        raise frames.Nonsense("an outcome holds texts")
    return said


class Host:
    """One process. `job` is what it runs, or will run once it is ready; `number` counts what it has been given."""

    __slots__ = (
        *("_memory", "_poll", "_received", "_unsent", "cpu_seconds", "job", "line", "number", "pid", "pool", "ready"),
        "since",
    )

    def __init__(self, pool: str, pid: int, line: int, memory: int, poll: "select.poll") -> None:
        self.pool = pool
        self.pid = pid
        self.line = line
        self.job: Job | None = None
        self.number = 0
        self.ready = False
        self.since = time.monotonic()  # when it was started, or has become idle
        self.cpu_seconds = 0.0  # of the tasks that have ended
        self._memory = memory
        self._received = frames.Unpacker(frames.foreign)
        self._unsent = bytearray()
        self._poll = poll
        poll.register(line, READABLE)

    def send(self, *message: "Any") -> None:
        """Tell it something; what its socket does not take now follows when it does."""
        self._unsent += frames.pack([message])
        self.push()

    def push(self) -> None:
        """Send what is left to send."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self.line, self._unsent)]
        except BlockingIOError:
            self._poll.modify(self.line, READABLE | WRITABLE)
            return
        except OSError:
            self._unsent.clear()  # it is dead, which is noticed soon
        self._poll.modify(self.line, READABLE)

    def hear(self) -> "list[tuple[Any, ...]]":
        """What it has said since; one that speaks nonsense (its model can make it) is killed."""
        found: list[tuple[Any, ...]] = []
        try:
            while data := os.read(self.line, frames.READ_BYTES):
                found += [_sound(said) for said in self._received.feed(data)]
        except BlockingIOError:
            return found
        except OSError:
            self._unsent.clear()
        except frames.Nonsense:
            self.kill()
        self._poll.modify(self.line, 0)  # its end was read, and is reported again and again
        return found

    def cancel(self) -> None:
        """Raise the flag of the task that it runs."""
        cancel_memory.raise_flag(self._memory, self.number)

    def kill(self) -> None:
        """Kill it with all that it has started."""
        signal_group(self.pid, SIGSTOP)  # so that nothing is started meanwhile
        for pid in descendants(self.pid):
            kill(pid)
        signal_group(self.pid, SIGKILL)

    def close(self) -> None:
        """It is gone."""
        self._poll.unregister(self.line)
        os.close(self.line)
        os.close(self._memory)
