"""Processes that jobs have left behind: the supervisor inherits them, and kills those whose job is over.

Imported by the supervisor, which must stay small.
"""

import os

from worker.offspring import children, kill, owner, session_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from worker.job import Job


class Orphans:
    """The orphans that have not been reaped: the job of each, and since when it is here."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str | None, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def forget_all(self) -> None:
        """There is no child left."""
        self._known.clear()

    def bury(self, pid: int, jobs: "Collection[Job]") -> None:
        """Take one from the process table; its CPU time counts for its job while that has not been reported."""
        session = session_of(pid)
        _, _, usage = os.wait4(pid, 0)
        key, _ = self._known.pop(pid, (None, 0.0))
        for job in jobs:
            if key == job.key or session == job.pid:
                job.cpu_seconds += usage.ru_utime + usage.ru_stime
                job.peak = max(job.peak, usage.ru_maxrss * 1024)

    def adopt(self, now: float, jobs: "Collection[Job]", others: "Collection[int]") -> "dict[int, str | None]":
        """The job of each orphan that is here; `jobs` are all that are not over, `others` no orphans."""
        sessions = {job.pid: job.key for job in jobs}
        found: dict[int, str | None] = {}
        for pid in children():
            if pid in others:
                continue
            if pid not in self._known:
                self._known[pid] = (owner(pid, sessions), now)
            found[pid] = self._known[pid][0]
        return found

    def kill_over(
        self, now: float, running: "Collection[Job]", ended: "Collection[Job]", others: "Collection[int]"
    ) -> "set[str | None]":
        """Adopt new orphans, and kill those whose job is over; the keys of the jobs that those belonged to.

        An orphan that cannot be assigned is over when all jobs that ran at its adoption are.
        """
        keys = {job.key for job in running}
        oldest = min((job.started for job in running), default=now)
        left: set[str | None] = set()
        for pid, key in self.adopt(now, (*running, *ended), others).items():
            if key not in keys and (key is not None or oldest >= self._known[pid][1]):
                left.add(key)
                kill(pid)
        return left
