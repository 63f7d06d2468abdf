"""Control groups: the kernel limits a task to the memory that it asked for, measures it, and lists its processes.

The setting `tasks.cgroup` names a group (version 1 or 2) that this worker may use, or allows its own, for example one
that systemd delegates to it; below it the worker makes one for its tasks, and in that one for each command. The worker
never makes a group elsewhere, even where it could: other groups belong to the machine's administrators.
"""

import contextlib
import errno
import fcntl
import os
import signal
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from banyan.errors import SetupError
from worker.capacity import control_groups

_ENTER = 'echo $$ > "$0" && exec "$@"'
"""The shell command that enters a group and then starts the task's program in its own place."""
_PREFIX = "banyan-worker-"
_LEAF = "banyan-processes"
OWN = "own"
"""The value of `tasks.cgroup` that means the group in which the worker is started."""
KILL_SECONDS = 2.0
"""The time that killed processes have to leave a group."""


class Left(NamedTuple):
    """The result of a group at the end of its attempt: if the kernel killed for lack of memory, the peak in bytes."""

    out_of_memory: bool = False
    peak_bytes: int | None = None


class ControlGroups:
    """Groups below `parent`, one for each attempt of a command; SetupError if none can be made there.

    Groups of a killed worker are removed. A worker holds a lock on its own group, which the kernel releases when the
    worker dies, so the owner of each group is known.
    """

    @classmethod
    def named(cls, setting: str) -> "ControlGroups | None":
        """Return the groups that the setting `tasks.cgroup` means: none, those below a directory, or below our own."""
        if not setting:
            return None
        return cls(own_group(Path("/")) if setting == OWN else Path(setting))

    def __init__(self, parent: Path) -> None:
        self._unified = (parent / "cgroup.controllers").exists()
        self._own = parent / f"{_PREFIX}{uuid.uuid4().hex}"
        try:
            self._pass_memory_on(parent)
            self._lock = self._made()
            self._pass_memory_on(self._own)
            trial = self._own / "trial"
            trial.mkdir()
            trial.rmdir()
        except OSError as error:
            hint = "correct tasks.cgroup, or leave it empty to limit memory by sampling"
            raise SetupError(f"cannot make control groups in {parent} ({error}); {hint}") from error
        for group in parent.glob(f"{_PREFIX}*"):
            if group != self._own:
                _remove_if_left(group)

    def _pass_memory_on(self, group: Path) -> None:
        if not self._unified:
            return
        control = group / "cgroup.subtree_control"
        if control.exists() and "memory" in control.read_text().split():
            return
        try:
            control.write_text("+memory")
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _vacate(group)
            control.write_text("+memory")

    def _made(self) -> int:
        """Make the worker's group; return the descriptor that holds the lock. OSError."""
        while True:
            self._own.mkdir()
            lock = os.open(self._own, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker that starts may hold it for a moment
            if self._own.exists():
                return lock
            os.close(lock)  # and has removed the group, which looked abandoned

    def close(self) -> None:
        """Remove the remaining groups, and the worker's group."""
        _remove(self._own)
        os.close(self._lock)

    def enter(self, execution: str, limit_bytes: int | None, argv: list[str]) -> list[str]:
        """Make the group of an attempt; return the command that runs `argv` inside. OSError if it cannot be made."""
        return ["/bin/sh", "-c", _ENTER, self.make(execution, limit_bytes), *argv]

    def make(self, execution: str, limit_bytes: int | None) -> str:
        """Make the group of an attempt; return its `cgroup.procs`, to which an entering process writes. OSError."""
        group = self._own / execution
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
        """End an attempt: kill the remaining processes of its group, and remove it; this may take a moment."""
        group = self._own / execution
        events = group / ("memory.events" if self._unified else "memory.oom_control")
        try:
            counts = dict(line.split()[:2] for line in events.read_text().splitlines())
        except OSError:
            counts = {}
        peak = _number(group / ("memory.peak" if self._unified else "memory.max_usage_in_bytes"))
        deadline = time.monotonic() + KILL_SECONDS
        while _kill(group) and time.monotonic() < deadline:
            time.sleep(0.005)
        _take_apart(group)
        return Left(int(counts.get("oom_kill", 0)) > 0, peak)

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


def own_group(root: Path) -> Path:
    """Return the group of this process that controls memory; SetupError if there is none. `root` is `/`."""
    for group in control_groups(root):
        controllers = group / "cgroup.controllers"
        limited = (group / "memory.limit_in_bytes").exists()
        if limited or (controllers.exists() and "memory" in controllers.read_text().split()):
            return group.parent if group.name == _LEAF else group
    raise SetupError("this worker is in no control group for memory: name one as tasks.cgroup, or leave it empty")


def _vacate(group: Path) -> None:
    """Move the processes of a group into one below it: a group of version 2 has processes or passes controllers on."""
    leaf = group / _LEAF
    leaf.mkdir(exist_ok=True)
    for pid in _processes(group):
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(str(pid))


def _processes(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except (OSError, ValueError):
        return []


def _all(group: Path) -> list[Path]:
    """Return a group and those below it, which a task may have made; the deepest first."""
    return [Path(each) for each, _, _ in os.walk(group, topdown=False)]


def _take_apart(group: Path) -> bool:
    """Remove a group and those below it; return whether that succeeded."""
    try:
        for each in _all(group):
            each.rmdir()
    except OSError:
        return False
    return True


def _kill(group: Path) -> bool:
    """Kill the processes of a group and of those below it; return whether there were any."""
    inside = [pid for each in _all(group) for pid in _processes(each) if _is_inside(pid, group)]
    for pid in inside:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(inside)


def _is_inside(pid: int, group: Path) -> bool:
    """Return whether the process is in the group: it may have ended, and its id may be another process's by now."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    return any(f"{line}/".find(f"/{group.name}/") >= 0 for line in lines)


def _remove_if_left(group: Path) -> None:
    """Remove a worker's group unless that worker is alive."""
    try:
        lock = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return  # it is gone, or not readable for us
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(group)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


def _remove(group: Path) -> None:
    """Kill the processes in a worker's group and its tasks' groups, and remove them."""
    deadline = time.monotonic() + KILL_SECONDS
    with contextlib.suppress(OSError):
        tasks = [each for each in group.iterdir() if each.is_dir()]
        while tasks and time.monotonic() < deadline:
            tasks = [each for each in tasks if not _gone(each)]
            time.sleep(0.01 if tasks else 0.0)
        group.rmdir()


def _gone(group: Path) -> bool:
    """Kill the processes of a task's group, and remove it; return whether that is done."""
    _kill(group)
    return _take_apart(group) or not group.exists()
