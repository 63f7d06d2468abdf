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
    """Those that were seen and are not buried yet: whose each is, and since when it is here."""

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

    def kill_over(
        self, now: float, running: "Collection[Job]", ended: "Collection[Job]", hosts: "Collection[int]"
    ) -> set[str | None]:
        """Adopt new orphans, and kill those whose job is over; the keys of the jobs that those belonged to.

        An orphan that cannot be assigned is over when all jobs that ran at its adoption are.
        """
        sessions = {job.pid: job.key for job in (*running, *ended)}
        keys = {job.key for job in running}
        first = {job.pid for job in running}
        oldest = min((job.started for job in running), default=now)
        left: set[str | None] = set()
        for pid in children():
            if pid in first or pid in hosts:
                continue
            if pid not in self._known:
                self._known[pid] = (owner(pid, sessions), now)
            key, since = self._known[pid]
            if key not in keys and (key is not None or oldest >= since):
                left.add(key)
                kill(pid)
        return left
