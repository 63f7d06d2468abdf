"""Processes that jobs have left behind: the supervisor inherits them, and kills those whose job is over.

Imported by the supervisor, which must stay small.
"""

import os

from worker.descent import latest_start, mark_of, marks_of, owner
from worker.offspring import children, kill, session_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from worker.job import Job


class Orphans:
    """The orphans that have not been reaped: the job of each, and the latest time at which it can have started."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str | None, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def forget_all(self) -> None:
        """Forget all orphans: the supervisor has no child."""
        self._known.clear()

    def bury(self, pid: int, jobs: "Collection[Job]", hosts: "Mapping[int, str]") -> None:
        """Reap an orphan; its CPU time counts for its job while that has not been reported."""
        key = self._known.pop(pid)[0] if pid in self._known else _owner(pid, jobs, hosts)
        _, _, usage = os.wait4(pid, 0)
        for job in jobs:
            if key == job.key:
                job.cpu_seconds += usage.ru_utime + usage.ru_stime
                job.alone = False
                job.peak = max(job.peak, usage.ru_maxrss * 1024)

    def adopt(
        self, jobs: "Collection[Job]", hosts: "Mapping[int, str]", others: "Collection[int]" = ()
    ) -> "dict[int, str | None]":
        """Return the job of each orphan.

        `jobs` are all that are not over, `hosts` the keys of host processes; `others` and these are no orphans.
        """
        found: dict[int, str | None] = {}
        for pid in children():
            if pid in others or pid in hosts:
                continue
            if pid not in self._known:
                key = _owner(pid, jobs, hosts)
                self._known[pid] = (key, latest_start(pid) if key is None else 0.0)
            found[pid] = self._known[pid][0]
        return found

    def kill_over(
        self,
        running: "Collection[Job]",
        ended: "Collection[Job]",
        hosts: "Mapping[int, str]",
        others: "Collection[int]",
    ) -> "set[str | None]":
        """Adopt new orphans, and kill those whose job is over; return the keys of these jobs.

        An orphan without a known job is over when all jobs that began before it are.
        """
        keys = {job.key for job in running} | set(hosts.values())
        oldest = min((job.started for job in running), default=None)
        left: set[str | None] = set()
        for pid, key in self.adopt((*running, *ended), hosts, others).items():
            if key not in keys and (key is not None or oldest is None or oldest > self._known[pid][1]):
                left.add(key)
                kill(pid)
        return left


def _owner(pid: int, jobs: "Collection[Job]", hosts: "Mapping[int, str]") -> str | None:
    sessions = {job.pid: job.key for job in jobs}
    session = session_of(pid)
    if session in sessions:
        return sessions[session]
    marks = marks_of(hosts.values()) | {mark_of(job.marked): job.key for job in jobs}
    return owner(pid, sessions, marks)
