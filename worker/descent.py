"""Descent: the job of a process, whatever the process does to hide it.

Linux forgets the parent of an orphan. Sessions (`setsid`), environments and names are a program's own to change; limits
on resources are inherited by all that a process starts, and nobody changes the one on file locks, which Linux has not
enforced since 2003. So each job has a number there that follows from its key.

Imported by the supervisor, which must stay small.
"""

import os
import resource
import time
from _blake2 import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COOKIE = b"BANYAN_EXECUTION_ID="
_RLIMIT_LOCKS = 10
"""Its number in Linux on all machines; `resource` has no name for it."""
_LIMIT_NAME = b"Max file locks"
_OURS = 0xBA9A << 40
"""The upper bits of all our numbers: 56 bits, of which 40 are the key's."""
_TICKS = os.sysconf("SC_CLK_TCK")
_TICK_SLACK_SECONDS = 0.02


def mark_of(key: str) -> int:
    """Return the number of a job's processes."""
    return _OURS | int.from_bytes(blake2b(key.encode(), digest_size=5).digest(), "little")


def mark_next(key: str) -> None:
    """Give the number of a job to all processes that this one starts from now on."""
    hard = resource.getrlimit(_RLIMIT_LOCKS)[1]
    mark = mark_of(key)
    if hard == resource.RLIM_INFINITY or mark <= hard:
        resource.setrlimit(_RLIMIT_LOCKS, (mark, hard))


def marks_of(keys: "Iterable[str]") -> "dict[int, str]":
    """Return the keys of jobs by their numbers."""
    return {mark_of(key): key for key in keys}


def owner(pid: int, sessions: "Mapping[int, str]", marks: "Mapping[int, str]") -> str | None:
    """Return the job of a process: by its session, its mark, or its environment; None: unknown.

    A process with a mark of a job that is not among `marks` belongs to none of these: then the result is no job's key.
    """
    try:
        session = os.getsid(pid)
        if session in sessions:
            return sessions[session]
        mark = _mark(pid)
        if mark in marks:
            return marks[mark]
        with open(f"/proc/{pid}/environ", "rb") as file:
            for pair in file.read().split(b"\0"):
                if pair.startswith(COOKIE):
                    return pair[len(COOKIE) :].decode(errors="replace")
    except OSError:
        return None  # it died, or is not readable for us
    return f"of mark {mark}" if mark >> 40 == _OURS >> 40 else None


def _mark(pid: int) -> int:
    with open(f"/proc/{pid}/limits", "rb") as file:
        for line in file:
            if line.startswith(_LIMIT_NAME):
                soft = line[len(_LIMIT_NAME) :].split()[0]
                return int(soft) if soft.isdigit() else 0
    return 0


def latest_start(pid: int) -> float:
    """Return the latest time, in seconds since the epoch, at which a process can have started; now if it is gone."""
    now = time.time()
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return now
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / _TICKS
    return now - age + _TICK_SLACK_SECONDS
