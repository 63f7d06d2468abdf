"""Control groups: the kernel itself holds a task to the memory that it asked for, measures it, and lists its processes.

The setting `tasks.cgroup` names a group (version 1 or 2) that this worker may use, for example one that systemd
delegates to it; each command gets a group of its own there. None is ever made elsewhere: even where the worker could
write, groups that nobody gave to it belong to those who manage the machine.
"""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from banyan.errors import SetupError

_ENTER = 'echo $$ > "$0" && exec "$@"'
"""What a shell runs to be in a group before the task's program starts in its place."""


KILL_SECONDS = 2.0
"""How long processes that are left in a group may take to go when they are killed."""


class Left(NamedTuple):
    """What a group tells when its attempt is over: if the kernel killed for want of memory, and the peak in bytes."""

    out_of_memory: bool = False
    peak_bytes: int | None = None


class ControlGroups:
    """Groups below `parent`, one for each attempt of a command; SetupError if none can be made there."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._unified = (parent / "cgroup.controllers").exists()
        try:
            if self._unified and "memory" not in (parent / "cgroup.subtree_control").read_text().split():
                (parent / "cgroup.subtree_control").write_text("+memory")
            trial = parent / f"banyan-trial-{os.getpid()}"
            trial.mkdir()
            trial.rmdir()
        except OSError as error:
            hint = "correct tasks.cgroup, or leave it empty to limit memory by sampling"
            raise SetupError(f"cannot make control groups in {parent} ({error}); {hint}") from error

    def enter(self, execution: str, limit_bytes: int | None, argv: list[str]) -> list[str]:
        """Make the group of an attempt; what to run so that `argv` runs inside. OSError if it cannot be made."""
        return ["/bin/sh", "-c", _ENTER, self.make(execution, limit_bytes), *argv]

    def make(self, execution: str, limit_bytes: int | None) -> str:
        """Make the group of an attempt; its `cgroup.procs`, which whoever enters writes to. OSError if that fails."""
        group = self._group(execution)
        group.mkdir()
        if limit_bytes is None:
            pass
        elif self._unified:
            self._set(group, "memory.swap.max", 0, needed=False)
            self._set(group, "memory.oom.group", 1, needed=False)
            self._set(group, "memory.max", limit_bytes)
        else:
            self._set(group, "memory.limit_in_bytes", limit_bytes)
            self._set(group, "memory.memsw.limit_in_bytes", limit_bytes, needed=False)
        return f"{group}/cgroup.procs"

    def leave(self, execution: str) -> Left:
        """The attempt is over: kill what is left in its group, and remove that; this may take a moment."""
        group = self._group(execution)
        events = group / ("memory.events" if self._unified else "memory.oom_control")
        try:
            counts = dict(line.split()[:2] for line in events.read_text().splitlines())
        except OSError:
            counts = {}
        peak = _number(group / ("memory.peak" if self._unified else "memory.max_usage_in_bytes"))
        deadline = time.monotonic() + KILL_SECONDS
        while _kill(group) and time.monotonic() < deadline:
            time.sleep(0.005)
        with contextlib.suppress(OSError):
            group.rmdir()
        return Left(int(counts.get("oom_kill", 0)) > 0, peak)

    def _group(self, execution: str) -> Path:
        return self._parent / f"banyan-{execution}"

    def _set(self, group: Path, name: str, value: int, *, needed: bool = True) -> None:
        try:
            (group / name).write_text(str(value))
        except OSError:  # kernels without swap accounting have no such file
            if needed:
                raise


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # version 2 has it since Linux 5.19


def _kill(group: Path) -> bool:
    """Kill the processes of a group; report if there were any."""
    try:
        pids = [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except (OSError, ValueError):
        return False
    inside = [pid for pid in pids if _is_inside(pid, group)]
    for pid in inside:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(inside)


def _is_inside(pid: int, group: Path) -> bool:
    """Tell if a process is in the group: it may have ended, and its number may be another one's by now."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    return any(f"{line}/".find(f"/{group.name}/") >= 0 for line in lines)
