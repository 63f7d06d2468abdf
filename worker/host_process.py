"""One host process, as the supervisor sees it: its end of the socket, its memory for `cancel`, its job.

Imported by the supervisor, which must stay small.
"""

import os
import time

from banyan import frames
from banyan.models import cancel_memory
from worker.offspring import SIGKILL, SIGSTOP, descendants, kill, resident_bytes, signal_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from typing import Any

    from worker.job import Job
    from worker.outputs import Outputs

READABLE, WRITABLE = 1, 4
"""The events of `select.poll`."""


SAYS: "dict[str, tuple[Any, ...]]" = {
    "ready": (int, (int, float)),
    "unfit": (str, str),
    "broken": (str,),
    "ended": (int, dict, int, bool, (int, float), bool),
}
"""The messages of a host, with the types of their values."""


def _sound(said: "Any") -> "Any":
    """Return the message if a host may send it; else Nonsense."""
    kind, *values = said
    types = SAYS.get(kind) if isinstance(kind, str) else None
    if types is None or len(values) != len(types):
        raise frames.Nonsense("no message of a host")
    for value, wanted in zip(values, types, strict=True):
        if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
            raise frames.Nonsense("a message with values of other types")
        if isinstance(value, (int, float)) and not abs(value) < 1 << 62:
            raise frames.Nonsense("a number out of range")
    if kind == "ended" and not all(isinstance(text, str) for name, text in values[1].items() if name != "died"):
        raise frames.Nonsense("an outcome with values other than texts")
    return said


class Host:
    """One process. `job` is the one that it runs, or will run once it is ready; `number` counts its tasks."""

    __slots__ = (
        *(
            "_heard_out",
            "_memory",
            "_poll",
            "_received",
            "_unsent",
            "cpu_seconds",
            "doomed",
            "fresh_bytes",
            "job",
            "line",
            "outputs",
        ),
        *("number", "pid", "pool", "ready", "since"),
    )

    def __init__(self, pool: str, pid: int, line: int, memory: int, poll: "select.poll", outputs: "Outputs") -> None:
        self.pool = pool
        self.pid = pid
        self.line = line
        self.outputs = outputs
        self.job: Job | None = None
        self.number = 0
        self.ready = False
        self.since = time.monotonic()  # its start, or the time at which it became idle
        self.cpu_seconds = 0.0  # until it was ready, and of the tasks that have ended
        self.fresh_bytes = 0  # its resident size when it was ready
        self.doomed = False  # it is being killed, or is dead
        self._heard_out = False
        self._memory = memory
        self._received = frames.Unpacker(frames.foreign)
        self._unsent = bytearray()
        self._poll = poll
        poll.register(line, READABLE)

    def send(self, *message: "Any") -> None:
        """Send it a message; the bytes that its socket does not accept now follow later."""
        self._unsent += frames.pack([message])
        self.push()

    def push(self) -> None:
        """Send the rest."""
        if self._heard_out:
            return
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
        """Return its new messages. A host that sends nonsense, which its model may cause, or hangs up is killed."""
        found: list[tuple[Any, ...]] = []
        try:
            while not self._heard_out:
                data = os.read(self.line, frames.READ_BYTES)
                if not data:
                    raise EOFError
                found += [_sound(said) for said in self._received.feed(data)]
        except BlockingIOError:
            return found
        except (OSError, EOFError, ValueError):
            self._heard_out = True
            self._poll.unregister(self.line)
            self.kill()
        return found

    def cancel(self) -> None:
        """Raise the flag of the task that it runs."""
        cancel_memory.raise_flag(self._memory, self.number)

    def kill(self) -> None:
        """Kill it with all processes that it has started."""
        self.doomed = True
        signal_group(self.pid, SIGSTOP)  # so that it starts nothing meanwhile
        for pid in descendants(self.pid):
            kill(pid)
        signal_group(self.pid, SIGKILL)

    def grown(self) -> int:
        """Return by how many bytes it is larger than when it was ready."""
        return resident_bytes(self.pid) - self.fresh_bytes

    def close(self) -> None:
        """Close the descriptors of a dead host."""
        if not self._heard_out:
            self._poll.unregister(self.line)
        os.close(self.line)
        os.close(self._memory)
