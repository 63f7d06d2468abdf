"""Memory limits by control groups: the kernel itself holds a task to what it asked for.

The setting `tasks.cgroup` names a group (version 1 or 2) that this worker may use, for example one that systemd
delegates to it; each task with a memory request gets a group of its own there. None is ever made elsewhere: even where
the worker could write, groups that nobody gave to it belong to those who manage the machine.
"""

import contextlib
import os
from pathlib import Path

from banyan.errors import SetupError

_ENTER = 'echo $$ > "$0" && exec "$@"'
"""What a shell runs to be in a group before the task's program starts in its place."""


class MemoryGroups:
    """Groups below `parent`, one for each task with a limit; SetupError if none can be made there."""

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

    def enter(self, execution: str, limit_bytes: int, argv: list[str]) -> list[str]:
        """Make the group of an attempt; what to run so that `argv` runs inside. OSError if it cannot be made."""
        return ["/bin/sh", "-c", _ENTER, self.make(execution, limit_bytes), *argv]

    def make(self, execution: str, limit_bytes: int) -> str:
        """Make the group of an attempt; its `cgroup.procs`, which whoever enters writes to. OSError if that fails."""
        group = self._group(execution)
        group.mkdir()
        if self._unified:
            self._set(group, "memory.swap.max", 0, needed=False)
            self._set(group, "memory.oom.group", 1, needed=False)
            self._set(group, "memory.max", limit_bytes)
        else:
            self._set(group, "memory.limit_in_bytes", limit_bytes)
            self._set(group, "memory.memsw.limit_in_bytes", limit_bytes, needed=False)
        return f"{group}/cgroup.procs"

    def leave(self, execution: str) -> bool:
        """The attempt is over: remove its group; whether the kernel killed in it for want of memory."""
        group = self._group(execution)
        events = group / ("memory.events" if self._unified else "memory.oom_control")
        try:
            counts = dict(line.split()[:2] for line in events.read_text().splitlines())
        except OSError:
            counts = {}
        with contextlib.suppress(OSError):
            group.rmdir()
        return int(counts.get("oom_kill", 0)) > 0

    def _group(self, execution: str) -> Path:
        return self._parent / f"banyan-{execution}"

    def _set(self, group: Path, name: str, value: int, *, needed: bool = True) -> None:
        try:
            (group / name).write_text(str(value))
        except OSError:  # kernels without swap accounting have no such file
            if needed:
                raise
